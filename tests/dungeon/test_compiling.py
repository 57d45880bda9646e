"""What blueprints stand for. Pure."""

from __future__ import annotations

import pytest

from holdfast_dungeon.blueprint import Blueprint
from holdfast_dungeon.compiler import BUILD, DEFEND, UNKNOWN_STRUCTURE, compile_dungeon, expand
from holdfast_dungeon.domain import make_domain
from holdfast_model.errors import Invalid

from .lairs import LAIR


def test_what_lives_in_a_room_depends_on_it() -> None:
    compiled = compile_dungeon(Blueprint.model_validate(LAIR))

    assert compiled.problems == ()
    edges = {piece.id: piece.depends_on for piece in compiled.pieces}
    assert edges == {
        "hall": (),
        "crypt": (),
        "hall--crypt": ("hall", "crypt"),
        "grub": ("hall",),
        "dragon": ("crypt",),
        "spikes": ("hall",),
    }


def test_only_a_creature_tamed_by_a_human_is_gated() -> None:
    compiled = compile_dungeon(Blueprint.model_validate(LAIR))

    assert {piece.id: piece.gating for piece in compiled.pieces if piece.gating != "NONE"} == {
        "dragon": "PROVISION_ONLY"
    }


def test_every_room_that_is_missing_is_named_at_its_place() -> None:
    # Given a trap, a creature and a corridor in rooms that are not declared
    spec = {
        "rooms": [{"id": "hall"}],
        "corridors": [{"between": ["hall", "attic"]}],
        "creatures": [{"id": "grub", "room": "cellar"}],
        "traps": [{"id": "pit", "room": "hall"}, {"id": "net", "room": "garden"}],
    }

    # When it is compiled as the planner would have it
    with pytest.raises(Invalid) as refused:
        make_domain().compile(spec)

    # Then one answer names them all
    assert [p.path for p in refused.value.problems] == ["/corridors/0/between/1", "/creatures/0/room", "/traps/1/room"]


def test_two_things_of_one_name_are_refused() -> None:
    with pytest.raises(Invalid, match="declared twice"):
        make_domain().compile({"rooms": [{"id": "a"}], "traps": [{"id": "a", "room": "a"}]})


def test_a_misspelt_member_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        make_domain().compile({"rooms": [{"id": "a", "sise": 2}]})

    assert [p.path for p in refused.value.problems] == ["/rooms/0/sise"]


def test_an_expansion_is_a_chain_in_the_order_of_its_list() -> None:
    reply = make_domain().compile({"location": "L", "structures": ["cannon", "nexus"], "posture": "PATROL"})

    build, defend = reply.phases
    assert {n.id: (n.type, n.depends_on) for n in build.nodes} == {
        "probe-L": ("probe", ()),
        "cannon-L": ("cannon", ("probe-L",)),
        "nexus-L": ("nexus", ("cannon-L",)),
    }
    assert [n for n in defend.nodes if n.id != "garrison-L"] == build.nodes, "what was built stays as it is"
    (garrison,) = [n for n in defend.nodes if n.id == "garrison-L"]
    assert (bytes(garrison.spec), garrison.depends_on) == (b'{"location":"L","posture":"PATROL"}', ("nexus-L",))


def test_an_expansion_has_a_phase_to_build_and_one_to_defend() -> None:
    phases, problems = expand("L", ["pylon"], "PATROL")

    assert problems == ()
    assert [(phase.id, phase.complete_when, len(phase.pieces)) for phase in phases] == [
        (BUILD, "all_present", 2),
        (DEFEND, "never", 3),
    ]


def test_an_expansion_without_a_posture_has_no_garrison() -> None:
    phases, _ = expand("L", ["pylon"])

    assert phases[0].pieces == phases[1].pieces


def test_rooms_beside_an_expansion_are_in_every_phase_and_hold_up_none() -> None:
    reply = make_domain().compile({**LAIR, "location": "L", "structures": ["pylon"]})

    assert {n.id for n in reply.nodes} >= {"hall", "crypt", "dragon"}
    assert [phase.id for phase in reply.phases] == [BUILD, DEFEND]
    assert not {n.id for phase in reply.phases for n in phase.nodes} & {n.id for n in reply.nodes}


@pytest.mark.parametrize("structure", ["probe", "castle"])
def test_a_structure_that_is_none_is_refused(structure: str) -> None:
    with pytest.raises(Invalid) as refused:
        make_domain().compile({"location": "L", "structures": ["nexus", structure]})

    (problem,) = refused.value.problems
    assert problem.path == "/structures/1"
    assert problem.message.startswith(UNKNOWN_STRUCTURE)


def test_structures_without_a_location_are_refused() -> None:
    with pytest.raises(Invalid, match="location"):
        make_domain().compile({"structures": ["nexus"]})
