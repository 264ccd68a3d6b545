"""Events: one CloudEvents 1.0 envelope, and the catalogue of every type there is.

A type is declared once, in the module of its family beside this file, with its meaning,
its producer, its consumers and the marshmallow schema of its data. Bindings, publish
permissions and the published contracts all follow from this catalogue.
"""

from services.grid.events.catalogue import CATALOGUE, of_consumer, of_producer
from services.grid.events.envelope import Event, InvalidEvent
from services.grid.events.event_type import EventType

__all__ = ["CATALOGUE", "Event", "EventType", "InvalidEvent", "of_consumer", "of_producer"]
