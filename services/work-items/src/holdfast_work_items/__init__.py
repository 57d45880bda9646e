"""Human work: slow work that waits for a person or an agent, with its deadlines, ownership and history.

Role: answer ``rpc.workitems.*``, carry out deadlines, and publish ``workitem.*`` events from the outbox.
Ban: no rules (they are in ``holdfast_model.work_items*``), no interpretation of a callerRef or payload, and
no knowledge of graphs.
"""
