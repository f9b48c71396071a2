"""The gRPC server that every stage and the orchestrator run in.

`main` starts it from the command line, `app` runs it; nothing is imported here, so that who only reads a configuration
(`security`) does not wait for a web server.
"""
