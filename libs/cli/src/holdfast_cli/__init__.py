"""The ``holdfast`` command: what a person or a script uses to declare, see, understand and decide.

Role: turns command lines into requests on the bus and replies into text or JSON; ``holdfast up`` also runs the whole
system on this machine.
Ban: no rules and no state of its own. It never reads the store; what it shows is what the services answered.
"""
