"""Stories of requests, told from what the flight recorder of a server remembers; for `sluiceway explain`."""

from sluiceway_runtime.stories.convert import call_story, error_of, server_story, span_of
from sluiceway_runtime.stories.servicer import SERVICE, add_stories, serve_stories

__all__ = ["SERVICE", "add_stories", "call_story", "error_of", "serve_stories", "server_story", "span_of"]
