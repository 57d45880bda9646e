"""``python -m holdfast_planner``"""

from holdfast_bus import run

from .app import build_app
from .settings import PlannerSettings

if __name__ == "__main__":
    run(build_app(PlannerSettings()))
