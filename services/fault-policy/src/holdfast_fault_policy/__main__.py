"""``python -m holdfast_fault_policy``"""

from holdfast_bus import run

from .app import build_app
from .settings import FaultPolicySettings

if __name__ == "__main__":
    run(build_app(FaultPolicySettings()))
