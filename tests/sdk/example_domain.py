"""Keeps DNS records as declared. This is the whole domain; ``Zone`` stands for a provider's client."""

from __future__ import annotations

from pydantic import BaseModel

from holdfast_sdk import Absent, Context, Domain, Drifted, GraphBuilder, Node, Permanent, Present, State, run


class Record(BaseModel, extra="forbid"):
    name: str
    address: str
    ttl: int = 300


class Blueprint(BaseModel, extra="forbid"):
    records: dict[str, Record]


class Published(BaseModel):
    address: str


class Zone:
    def __init__(self) -> None:
        self.records: dict[str, str] = {}

    async def get(self, name: str) -> str | None:
        return self.records.get(name)

    async def put(self, name: str, address: str, key: str) -> None:
        if address == "0.0.0.0":
            raise Permanent("the provider refuses this address", reason="bad_address")
        self.records[name] = address


dns = Domain("dns", blueprint=Blueprint, version="1.0")


@dns.compiler
def compile(bp: Blueprint, graph: GraphBuilder) -> None:
    for id, record in bp.records.items():
        graph.add(id, "dns-record", record, at=f"/records/{id}")


@dns.node_type("dns-record", resync="5m", timeout="20s", rate="50/s")
class DnsRecord:
    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    async def observe(self, node: Node[Record], ctx: Context) -> State[Published]:
        address = await self.zone.get(node.spec.name)
        if address is None:
            return Absent()
        if address != node.spec.address:
            return Drifted("changed", detail=f"points to {address}", token=address)
        return Present(outputs=Published(address=address), token=address)

    async def provision(self, node: Node[Record], ctx: Context) -> Published:
        await self.zone.put(node.spec.name, node.spec.address, ctx.idempotency_key)
        return Published(address=node.spec.address)

    async def deprovision(self, node: Node[Record], ctx: Context) -> None:
        self.zone.records.pop(node.spec.name, None)


def handlers() -> DnsRecord:
    return DnsRecord(Zone())


if __name__ == "__main__":
    run(dns, handlers())
