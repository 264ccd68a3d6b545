"""The ``huashi`` command: reports, desks and the demo, over the services' HTTP interfaces."""
