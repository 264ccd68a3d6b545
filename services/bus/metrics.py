"""Every metric there is, in one list.

Names start with ``huashi_``, times are seconds. Labels have few values (a level, a type, a
reason, an outcome), never an id or a division code, but for the few subscriptions' ids. Which
process it is, Prometheus knows from where it scraped; ``huashi_process_info`` says which service
and level that is.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LATE = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)

# -- the process ---------------------------------------------------------------------------

# Always 1: joins the service and the level to any other metric of this process.
PROCESS_INFO = Gauge("huashi_process_info", "Which service runs here.", ["service", "level"])

# -- the bus -------------------------------------------------------------------------------

# Events taken from a queue and done with. outcome: done, rejected, deferred (what it needs was
# not there yet: it waits in the queue's again).
EVENTS_CONSUMED = Counter(
    "huashi_events_consumed_total", "Events read and acknowledged.", ["type", "outcome"]
)
# Events that the broker confirmed.
EVENTS_PUBLISHED = Counter(
    "huashi_events_published_total", "Events published and confirmed.", ["type"]
)
# Events that no queue took: a binding is missing, and the event waits in its document.
EVENTS_RETURNED = Counter(
    "huashi_events_returned_total", "Events that no queue took; they will be retried.", ["type"]
)
# Messages parked as dead letters. reason: a short word such as invalid_event.
EVENTS_REJECTED = Counter(
    "huashi_events_rejected_total", "Messages parked as dead letters.", ["reason"]
)
# Messages that came a second time, after a crash or a lost connection.
EVENTS_REDELIVERED = Counter(
    "huashi_events_redelivered_total", "Messages that were delivered again."
)
# How many messages were handled together.
BATCH_SIZE = Histogram("huashi_batch_size", "Messages a batch.", ["queue"], buckets=_SIZES)
# Waiting for RabbitMQ or MongoDB with a batch in hand. cause: broker, database, other.
RETRIES = Counter("huashi_retries_total", "Steps put off because something is away.", ["cause"])
# 1 while this process has its connection. peer: broker (events go out), letters (dead letters
# go out), database, or the queue that it reads.
CONNECTED = Gauge("huashi_connected", "1 while the connection is there.", ["peer"])

# -- the step ------------------------------------------------------------------------------

# Reading, deciding, writing, acknowledging and publishing of one batch.
STEP_SECONDS = Histogram("huashi_step_seconds", "Duration of one step.", buckets=_FAST)
# A document was changed by another process in between; the step was tried again.
CONFLICTS = Counter("huashi_conflicts_total", "Guarded writes that had to be repeated.")
# Age of the oldest event that was written and is not published yet: 0 when all is well.
UNPUBLISHED_OLDEST = Gauge(
    "huashi_unpublished_oldest_seconds", "Age of the oldest unpublished event."
)
# Sweeps of what a crash or an outage left. outcome: clean, published, away.
SWEEPS = Counter("huashi_sweeps_total", "Sweeps for unpublished events.", ["outcome"])

# -- duplicates (escalation) ---------------------------------------------------------------

# Cases that a person merged into an older one (并案).
MERGED = Counter("huashi_cases_merged_total", "Cases merged into an older one.")

# -- deadlines (escalation) ----------------------------------------------------------------

# Deadlines that passed and were acted upon. kind: acknowledge, report, resolve, progress, remind,
# supervise, and check_in and finish of a unit that was called (at its level); mode: ordinary, or
# emergency for a case under the rules of emergency mode.
DEADLINES_FIRED = Counter(
    "huashi_deadlines_fired_total", "Deadlines fired.", ["level", "kind", "mode"]
)
# Cases whose deadline could not be acted upon: a defect; each is tried again after five minutes.
DEADLINES_FAILED = Counter(
    "huashi_deadlines_failed_total", "Deadlines that could not be fired and were put off."
)
# From when a deadline was due to when it fired, in real seconds.
DEADLINE_LATENESS = Histogram(
    "huashi_deadline_lateness_seconds",
    "How late deadlines fired, in real seconds.",
    ["level", "kind", "mode"],
    buckets=_LATE,
)
# How long the oldest deadline that should have fired has been waiting, in real seconds; lane: a
# part of the process's share.
DEADLINES_OVERDUE = Gauge(
    "huashi_deadlines_overdue_seconds", "Age of the oldest deadline due and not fired.", ["lane"]
)
# Custody that arrived with a time ahead of ours: a clock elsewhere runs fast.
TIMES_CLAMPED = Counter("huashi_times_clamped_total", "Times from elsewhere that lay ahead.")

# -- reconciliation (escalation) -----------------------------------------------------------

# What a pass found, once a second look had confirmed it. kind: see docs/operating.
RECONCILIATION_FINDINGS = Counter(
    "huashi_reconciliation_findings_total", "Disagreements found.", ["kind"]
)
# What of it was mended. Findings without repairs: the log says why.
RECONCILIATION_REPAIRS = Counter("huashi_reconciliation_repairs_total", "Repairs made.", ["kind"])
# Passes that this process ran. outcome: complete, partial (somebody did not answer), failed.
RECONCILIATION_PASSES = Counter(
    "huashi_reconciliation_passes_total", "Passes over everything.", ["outcome"]
)
# The last pass of any replica: when it ended (Unix time; its age is time() minus this), how long
# it took, how much it compared (of: custody, register, or a level's docket), and who did not
# answer (of: register, or a level): 1 until a later pass could ask it.
RECONCILIATION_FINISHED = Gauge(
    "huashi_reconciliation_finished_timestamp_seconds", "When the last pass ended."
)
RECONCILIATION_DURATION = Gauge(
    "huashi_reconciliation_duration_seconds", "Duration of the last pass."
)
RECONCILIATION_COMPARED = Gauge(
    "huashi_reconciliation_compared", "Cases or entries compared by the last pass.", ["of"]
)
RECONCILIATION_NOT_ASKED = Gauge(
    "huashi_reconciliation_not_asked", "1 if it did not answer in the last pass.", ["of"]
)

# -- emergency mode (escalation) -----------------------------------------------------------

# How many divisions are in emergency mode (战时机制), with all below them.
EMERGENCIES = Gauge("huashi_emergencies", "Divisions in emergency mode.")
# Cases in flight that came under other rules by a switch. switch: on, off.
EMERGENCY_HOPS = Counter(
    "huashi_emergency_hops_total", "Cases in flight that followed a switch.", ["switch"]
)

# -- feedback (intake) ---------------------------------------------------------------------

# What reporters say of how their case was resolved (回访). satisfied: yes, no.
FEEDBACK = Counter("huashi_feedback_total", "Feedback given.", ["satisfied"])
# Cases closed (销号). why: confirmed (by feedback), unanswered (nobody answered in time).
CLOSED = Counter("huashi_closed_total", "Resolved cases that were closed.", ["why"])
# Cases taken up again. why: unsatisfied (by feedback), asked (by a lead or operator).
REOPENED = Counter("huashi_reopened_total", "Cases that were reopened.", ["why"])
# Reports taken back before anybody had resolved the case.
WITHDRAWN = Counter("huashi_withdrawn_total", "Cases that were withdrawn.")
# Resolved cases that could not be closed: a defect; each is tried again after five minutes.
CLOSING_FAILED = Counter(
    "huashi_closing_failed_total", "Cases that could not be closed and were put off."
)

# -- the front door (intake) ---------------------------------------------------------------

# Events of other systems. door: http, amqp; type: case.report, ..., unknown; outcome: accepted,
# rejected.
INBOUND = Counter(
    "huashi_inbound_events_total", "Events of other systems.", ["door", "type", "outcome"]
)

# Events that waited too long for a system that subscribed, and were dropped: at least so many.
LOST = Counter("huashi_subscription_lost_total", "Events that a system lost.", ["system"])
# Events of the timeline that were put into a system's queue once more.
REPLAYED = Counter("huashi_subscription_replayed_total", "Events sent to a system again.")

# A year of which no calendar's holidays are known: deadlines count its plain weeks. 1 if so.
HOLIDAYS_UNKNOWN = Gauge(
    "huashi_holidays_unknown", "1 for a year whose holidays are not known.", ["holidays", "year"]
)

# -- notify --------------------------------------------------------------------------------

# Recipients told, or given up. outcome: delivered, failed.
NOTIFICATIONS = Counter(
    "huashi_notifications_total", "Notifications by channel.", ["channel", "outcome"]
)

# -- subscriptions over HTTP (notify) --------------------------------------------------------

# There are a hundred subscriptions at most, and what is said of one ends when it is removed.
WEBHOOK_OUTCOMES = ("delivered", "failed", "given_up")
# Events sent to a subscription's sink. outcome: delivered, failed (it is tried again), given_up
# (the sink takes others and not this one).
WEBHOOK_DELIVERIES = Counter(
    "huashi_webhook_deliveries_total",
    "Deliveries of events to subscribers.",
    ["subscription", "outcome"],
)
# 1 while a subscription is paused, because its sink took nothing for too long.
WEBHOOK_PAUSED = Gauge(
    "huashi_webhook_paused", "1 for a subscription that is paused.", ["subscription"]
)
# How long the event that waits longest for a subscription has waited, in real seconds: 0 if none.
WEBHOOK_OLDEST = Gauge(
    "huashi_webhook_oldest_waiting_seconds", "Age of what waits longest.", ["subscription"]
)

# -- HTTP ----------------------------------------------------------------------------------

# Requests answered. route is the template (/v1/cases/<case>), or "none".
HTTP_REQUESTS = Counter(
    "huashi_http_requests_total", "HTTP requests answered.", ["method", "route", "status"]
)
# Readings of the identity provider's keys (JWKS_URL). outcome: read, failed.
KEYS_READ = Counter(
    "huashi_keys_read_total", "Readings of the identity provider's keys.", ["outcome"]
)
# Entries of the audit trail. outcome: written; lost (the database was away when something was
# refused: the entry is in the log); omitted (more requests without a valid token than are kept).
AUDIT_ENTRIES = Counter("huashi_audit_entries_total", "Entries of the audit trail.", ["outcome"])
# From the request's head to the answer.
HTTP_SECONDS = Histogram(
    "huashi_http_request_seconds", "Duration of requests.", ["method", "route"], buckets=_FAST
)
