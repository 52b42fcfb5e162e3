"""Local rewards over HTTP (``beholder serve``): dynamic batches, one scoring process, errors that say what to do.

    settings   what the user sets                     body      bounded reading of requests
    schema     the JSON of requests and replies       batching  the queue, and what happens when the worker dies
    problem    structured errors                      worker    the scoring process, seen from the server
    app        the routes                             scoring   the scoring process itself
    run        sockets, signals, start and stop

The server's own process loads no torch, so that a crash of native code takes the worker and nothing else.
"""
