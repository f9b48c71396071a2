"""Image files: what a header says, which are accepted, and their pixels; the same for every stage.

`header` and `limits` need nothing, and `signatures` even less. `decode` needs numpy, OpenCV and Pillow; only what
decodes imports it.
"""
