"""The domain's words: divisions, ladders, profiles, deadlines, tokens, events, clock.

Pure: nothing here opens a socket, and nothing here imports nameko, kombu or pymongo
(``tests/unit/test_boundaries.py`` holds that).
"""
