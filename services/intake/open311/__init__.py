"""Open311 GeoReport v2: reports and their progress for the apps and servers that speak it.

``routes.py`` is the table, ``wire.py`` how it looks (JSON, XML, errors), ``schemas.py`` what is
sent and answered, ``catalogue.py`` which services there are, ``requests.py`` and ``updates.py``
what is done.
"""
