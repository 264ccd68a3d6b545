"""The embedded stack: a RabbitMQ node and a MongoDB replica set of our own, and all services.

``make up`` starts it, ``make down`` ends it; everything it writes lies in one folder, ``.run``
or what ``RUN_DIR`` names. Nothing listens beyond this machine.
"""
