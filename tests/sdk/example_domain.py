"""Keeps DNS records as declared. The whole domain; `zone` stands for a provider's API."""

from __future__ import annotations

from pydantic import BaseModel

from holdfast_sdk import Absent, Context, Domain, Drifted, GraphBuilder, Node, Permanent, Present, Ref, State, Temporary


class Record(BaseModel, extra="forbid"):
    name: str
    address: str | Ref
    ttl: int = 300


class Published(BaseModel):
    name: str
    address: str


class Blueprint(BaseModel, extra="forbid"):
    records: dict[str, Record]


class Zone:
    """A provider of DNS records: name -> (address, idempotency key)."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[str, str]] = {}
        self.down = False

    async def get(self, name: str) -> str | None:
        if self.down:
            raise Temporary("the provider is down", retry_after=5)
        return self.records.get(name, (None, ""))[0]

    async def put(self, name: str, address: str, key: str) -> None:
        if self.down:
            raise Temporary("the provider is down", retry_after=5)
        if address == "0.0.0.0":
            raise Permanent("refused by the provider", reason="bad_address")
        self.records[name] = (address, key)


dns = Domain("dns", blueprint=Blueprint, version="1.0")


@dns.compiler
def compile(bp: Blueprint, graph: GraphBuilder) -> None:
    for id, record in bp.records.items():
        graph.add(id, "dns-record", record, at=f"/records/{id}")  # a Ref in the spec adds its edge


@dns.node_type("dns-record", resync="5m", timeout="20s", rate="500/s")
class DnsRecord:
    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    async def observe(self, node: Node[Record], ctx: Context) -> State[Published]:
        address = await self.zone.get(node.spec.name)
        if address is None:
            return Absent()
        if address != node.spec.address:
            return Drifted("changed", detail=f"points to {address}", token=address)
        return Present(outputs=Published(name=node.spec.name, address=address))

    async def provision(self, node: Node[Record], ctx: Context) -> Published:
        await self.zone.put(node.spec.name, str(node.spec.address), ctx.idempotency_key)
        return Published(name=node.spec.name, address=str(node.spec.address))

    async def deprovision(self, node: Node[Record], ctx: Context) -> None:
        self.zone.records.pop(node.spec.name, None)


domain = dns


def handlers() -> DnsRecord:
    return DnsRecord(Zone())
