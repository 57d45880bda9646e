"""Every key, in one place. Nothing else in Holdfast builds one.

Keys of one graph carry the hash tag ``{tenant/graph}``, so that one transaction stays in one slot.

======================== ========== ==================================================== ================
key                      type       content                                              written by
======================== ========== ==================================================== ================
hf:{t/g}:ver             string     version of the graph: the compare-and-set word       commits
hf:{t/g}:epoch           string     the fence: a new owner raises it before it writes    the owner
hf:{t/g}:meta            hash       incarnation, operation counter, status, phase,       admission, owner
                                    paused, deadline, digests, sequence floors; outlives
                                    deletion, nobody WATCHes it
hf:{t/g}:node            hash       node id -> row (JSON): each owner's declaration      commits
hf:{t/g}:phases          hash       owner/index -> nodes of a phase (JSON), owner/+      admission
                                    -> nodes that all its phases have
hf:{t/g}:gone            hash       JSON [id, type] -> tombstone (JSON)                  commits
hf:{t/g}:state           hash       node id -> what is known of it (JSON)                the owner
hf:{t/g}:todo            hash       intent id -> open intent (JSON)                      the owner
hf:{t/g}:inbox           stream     what other replicas took in for the owner            anyone
hf:{t/g}:fault:<id>      string     a fault not yet handled (JSON)                       the owner
hf:{t/g}:faults          set        ids of those                                         the owner
hf:{t/g}:counts          hash       node id -> counts of its faults by namespace (JSON)  policy, owner
hf:{t/g}:log             stream     v version, ops JSON [{id, actor, cause, mutations}], commits
                                    d delta (JSON), or reload=1
hf:{t/g}:out             stream     e event (JSON): committed, not yet published         commits, owner
hf:{t/g}:ops             sorted set recent op ids, scored by the version they led to     commits
hf:{t/g}:turn            string     id of the owner's last turn                          the owner
hf:{t/g}:intent          string     a writer that lost twice asks others to wait (PX)    commits
hf:{t/g}:stage:<token>:* hash       rows of a bulk commit until they are renamed (EX)    commits
hf:{t/g}:pending         hash       owner -> a blueprint that waits (JSON)               admission
hf:{t/g}:document        hash       owner -> its newest blueprint as it was published           admission
hf:{t/g}:sit             hash       JSON [situation, zone] -> what is counted (JSON)     policy
hf:owner:{<p>}           string     who plans the partition (PX 5 s); watched only to    planners
                                    take, renew or release it
hf:epoch:{<p>}           string     the partition's epoch; never expires                 planners
hf:planners              sorted set live planners, scored by their last heartbeat (s)    planners
hf:graphs:<p>            set        tenant/graph of the partition; written first         admission
hf:due:<p>               sorted set tenant/graph, scored by next wake-up (s)             the owner
hf:waiting:<domain>      set        tenant/graph that wait for it; written first         admission
hf:domains               hash       domain@version -> manifest and heartbeats (JSON)     planners
hf:claims                hash       node type -> domain                                  planners
hf:prefs                 hash       JSON [tenant or "", name] -> value                   planners, CLI
hf:wi:tenants            set        tenants that have WorkItems; written first           work-items
hf:wi:{t}:<id>           hash       one WorkItem: item (JSON), version, status           work-items
hf:wi:{t}:active:<ref>   string     callerRef -> id of its active item                   work-items
hf:wi:{t}:newest:<ref>   string     callerRef -> id of its newest item in any status     work-items
hf:wi:{t}:request:<key>  string     request key -> id; "-": withdrawn before it came (EX)   work-items
hf:wi:{t}:all            sorted set ids, scored by creation (s)                          work-items
hf:wi:{t}:status:<s>     sorted set ids by status, scored by creation (s); likewise      work-items
                                    assignee:<a> and graph:<g or _>, and of active
                                    items the candidates user:<u> and group:<g>
hf:wi:{t}:open           sorted set active items that the whole tenant may act on        work-items
hf:wi:{t}:due            sorted set ids, scored by their running deadline (s)            work-items
hf:wi:{t}:audit:<id>     stream     history of one item: e entry (JSON), o op id         work-items
hf:wi:{t}:audit          stream     history of all, refusals included; bounded           work-items
hf:wi:{t}:out            stream     outbox: e event (JSON)                               work-items
hf:wi:{t}:relay          string     who publishes the outbox just now (PX)               work-items
======================== ========== ==================================================== ================
"""

from __future__ import annotations

from holdfast_model.names import GraphRef

PLANNERS = "hf:planners"
DOMAINS = "hf:domains"
CLAIMS = "hf:claims"
PREFS = "hf:prefs"
WI_TENANTS = "hf:wi:tenants"


def _graph(ref: GraphRef, name: str) -> str:
    return f"hf:{{{ref.tenant}/{ref.graph}}}:{name}"


def ver(ref: GraphRef) -> str:
    return _graph(ref, "ver")


def epoch(ref: GraphRef) -> str:
    return _graph(ref, "epoch")


def meta(ref: GraphRef) -> str:
    return _graph(ref, "meta")


def node(ref: GraphRef) -> str:
    return _graph(ref, "node")


def phases(ref: GraphRef) -> str:
    return _graph(ref, "phases")


def gone(ref: GraphRef) -> str:
    return _graph(ref, "gone")


def state(ref: GraphRef) -> str:
    return _graph(ref, "state")


def todo(ref: GraphRef) -> str:
    return _graph(ref, "todo")


def inbox(ref: GraphRef) -> str:
    return _graph(ref, "inbox")


def fault(ref: GraphRef, fault_id: str) -> str:
    return _graph(ref, f"fault:{fault_id}")


def faults(ref: GraphRef) -> str:
    return _graph(ref, "faults")


def counts(ref: GraphRef) -> str:
    return _graph(ref, "counts")


def log(ref: GraphRef) -> str:
    return _graph(ref, "log")


def out(ref: GraphRef) -> str:
    return _graph(ref, "out")


def ops(ref: GraphRef) -> str:
    return _graph(ref, "ops")


def turn(ref: GraphRef) -> str:
    return _graph(ref, "turn")


def intent(ref: GraphRef) -> str:
    return _graph(ref, "intent")


def stage(ref: GraphRef, token: str, name: str) -> str:
    """Where a bulk commit lays out ``name`` (``node`` or ``gone``) before it is renamed."""
    return _graph(ref, f"stage:{token}:{name}")


def document(ref: GraphRef) -> str:
    """Blueprints as they were published, by owner; documents beyond a limit are not kept."""
    return _graph(ref, "document")


def pending(ref: GraphRef) -> str:
    return _graph(ref, "pending")


def situations(ref: GraphRef) -> str:
    return _graph(ref, "sit")


def owner(partition: int) -> str:
    return f"hf:owner:{{{partition}}}"


def partition_epoch(partition: int) -> str:
    return f"hf:epoch:{{{partition}}}"


def graphs(partition: int) -> str:
    return f"hf:graphs:{partition}"


def due(partition: int) -> str:
    return f"hf:due:{partition}"


def waiting(domain: str) -> str:
    return f"hf:waiting:{domain}"


def _item(tenant: str, name: str) -> str:
    return f"hf:wi:{{{tenant}}}:{name}"


def wi_item(tenant: str, item: str) -> str:
    return _item(tenant, item)


def wi_active(tenant: str, caller_ref: str) -> str:
    return _item(tenant, f"active:{caller_ref}")


def wi_newest(tenant: str, caller_ref: str) -> str:
    return _item(tenant, f"newest:{caller_ref}")


def wi_request(tenant: str, request: str) -> str:
    return _item(tenant, f"request:{request}")


def wi_all(tenant: str) -> str:
    return _item(tenant, "all")


def wi_status(tenant: str, status: str) -> str:
    return _item(tenant, f"status:{status}")


def wi_assignee(tenant: str, actor: str) -> str:
    return _item(tenant, f"assignee:{actor}")


def wi_user(tenant: str, user: str) -> str:
    return _item(tenant, f"user:{user}")


def wi_group(tenant: str, group: str) -> str:
    return _item(tenant, f"group:{group}")


def wi_graph(tenant: str, graph: str) -> str:
    return _item(tenant, f"graph:{graph}")


def wi_open(tenant: str) -> str:
    return _item(tenant, "open")


def wi_due(tenant: str) -> str:
    return _item(tenant, "due")


def wi_audit(tenant: str, item: str) -> str:
    return _item(tenant, f"audit:{item}")


def wi_audit_all(tenant: str) -> str:
    return _item(tenant, "audit")


def wi_relay(tenant: str) -> str:
    return _item(tenant, "relay")


def wi_out(tenant: str) -> str:
    return _item(tenant, "out")
