from __future__ import annotations

import pytest

from holdfast_model.errors import Invalid
from holdfast_pipeline.expressions import expression, query

TABLES = {"orders", "by_day"}

ATTACKS = [
    "select * from read_csv('/etc/hostname')",
    "select * from READ_PARQUET  ('/etc/hostname')",
    "select * from \"read_csv\"('/etc/hostname')",
    "select * from orders, read_csv('/etc/hostname') x",
    "select * from orders join read_csv('/etc/hostname') x on true",
    "select * from orders where a in (select a from read_csv('/etc/hostname'))",
    "select (select a from read_json('x')) from orders",
    "with c as (select * from read_csv('/etc/hostname')) select * from c",
    "with read_csv as (select 1 as a) select * from read_csv('/etc/hostname')",
    'with "read_csv" as (select a from orders) select * from "read_csv"(\'/etc/hostname\')',
    "select * from orders union select * from read_ipc('/etc/hostname')",
    "select * from lateral read_csv('/etc/hostname') x",
    "select * from table(read_csv('/etc/hostname'))",
    "select read_csv('/etc/hostname') from orders",
    "select * from read_csv/**/('/etc/hostname')",
    "select * from scan_csv('/etc/hostname')",
    "select * from '/etc/hostname'",
    'select * from "/etc/hostname"',
    'with "/etc/hostname" as (select a from orders) select * from "/etc/hostname"',
    "select * from '../secrets.csv'",
    "select * from orders, '/etc/hostname'",
    "drop table orders",
    "DROP TABLE IF EXISTS orders",
    "delete from orders",
    "truncate table orders",
    "insert into orders values (1)",
    "update orders set a = 1",
    "merge into orders using by_day on true when matched then delete",
    "create table z as select * from orders",
    "alter table orders add column z int",
    "copy orders to '/tmp/stolen.csv'",
    "select * into z from orders",
    "with x as (delete from orders returning *) select * from x",
    "with x as (insert into orders values (1) returning *) select * from x",
    "explain select * from orders",
    "explain delete from orders",
    "show tables",
    "set x = 1",
    "pragma y",
    "attach 'x' as y",
    "call f()",
    "begin",
    "from orders",
    "table orders",
    "values (1)",
    "select * from (values (1)) v",
    "select * from orders cross join unnest(a) u",
    "select * from orders; drop table orders",
    "select * from orders;;",
    "select 1; select * from orders",
    "/* select */ drop table orders",
    "-- select\ndrop table orders",
    "select 'it''s' from orders; drop table orders",
    "select $$a$$ from orders",
    "select E'\\x41' from orders",
    "select x'41' from orders",
    "select `a` from orders",
    "select $1 from orders",
    "select ? from orders",
    "select a from information_schema.tables",
    "select a from public.orders",
    "select a from nobody",
    "select a from ORDERS",
    "with orders as (select 1 as a) select * from orders",
    "with recursive r as (select 1 as n union all select n + 1 from r) select * from r",
    "select a from orders tablesample bernoulli (1)",
    "select a from orders for update",
    "select now() from orders",
    "select NOW ( ) from orders",
    "select current_date from orders",
    "select Current_Timestamp from orders",
    "select localtime from orders",
    "select random() from orders",
    "select a from orders order by rand()",
    "select uuid() from orders",
    "select gen_random_uuid() from orders",
    "select 1",
    "",
    "   ",
    "-- nothing",
    "select",
    "select from where",
    "select * from orders where (((",
    "select 'open from orders",
    "select a\x00 from orders",
    "\N{ZERO WIDTH SPACE}select * from orders; x",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_sql_that_does_more_than_read_the_inputs_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        query(text, TABLES, "/transformers/0/sql")
    assert [p.path for p in caught.value.problems] == ["/transformers/0/sql"]


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("select a from orders", {"orders"}),
        ("SELECT a FROM orders;", {"orders"}),
        ('select "a b" from "orders"', {"orders"}),
        ("with d as (select a from orders) select d.a, b.a from d join by_day b on d.a = b.a", {"orders", "by_day"}),
        ("select a from orders union all select a from by_day", {"orders", "by_day"}),
        ("select a from (select a from orders) x", {"orders"}),
        ("select a from orders where a in (select a from by_day)", {"orders", "by_day"}),
        ("select a from orders where exists (select 1 from by_day where by_day.a = orders.a)", {"orders", "by_day"}),
        ("select now from orders", {"orders"}),
        ("select 'read_csv(1); drop table x -- now()' as a from orders", {"orders"}),
        ("select row_number() over (partition by a order by b) as n from orders", {"orders"}),
    ],
)
def test_reading_the_inputs_is_allowed(text: str, tables: set[str]) -> None:
    assert query(text, TABLES, "").tables == tables


def test_comments_and_spacing_do_not_change_the_canonical_text() -> None:
    plain = query("select a, sum(b) as b from orders where c = 'it''s -- no comment' group by a", TABLES, "")
    noisy = query(
        "select a, -- the key\n   sum( b ) /* of /* all */ */ as b\n from orders\n"
        " where c='it''s -- no comment'\ngroup   by a ;",
        TABLES,
        "",
    )
    assert noisy.text.lower() == plain.text.lower()
    assert query(noisy.text, TABLES, "").text == noisy.text


@pytest.mark.parametrize(
    "text",
    [
        "a = 1 or " * 200 + "a = 1",
        "(" * 500 + "a" + ")" * 500,
        "a" + " + 1" * 3000,
        "a" * 30_000,
        "not " * 2000 + "a",
        "case when a then " * 300 + "1" + " end" * 300,
    ],
)
def test_an_expression_that_could_exhaust_a_stack_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        expression(text, "/x")


def test_a_query_that_multiplies_its_tables_is_refused() -> None:
    steps = ["t0 as (select a from orders)"] + [
        f"t{i} as (select x.a from t{i - 1} x, t{i - 1} y)" for i in range(1, 30)
    ]
    with pytest.raises(Invalid, match="256"):
        query(f"with {', '.join(steps)} select * from t29", TABLES, "")


@pytest.mark.parametrize(
    "text",
    [
        "select 1",
        "(select 1)",
        "a in (select a from read_csv('/etc/hostname'))",
        "exists (select 1)",
        "a, b",
        "a as b",
        "*",
        "orders.a > 1",
        "sum(a)",
        "sum(a) over ()",
        "now() > a",
        "read_csv('/etc/hostname')",
        "\"read_csv\"('/etc/hostname')",
        "a; drop table x",
        "drop table x",
        "a = $1",
        "a >",
        "a ==== b",
        "",
    ],
)
def test_what_is_no_expression_over_one_row_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        expression(text, "/cleansers/0/rules/1/filter")
    assert [p.path for p in caught.value.problems] == ["/cleansers/0/rules/1/filter"]


def test_an_expression_knows_its_columns() -> None:
    assert expression("\"first name\" || ' ' || coalesce(name, 'nobody')", "").columns == {"first name", "name"}


def test_aggregates_are_allowed_where_rows_are_grouped() -> None:
    assert expression("sum(net) / count(*)", "", aggregate=True).aggregates
    assert expression("sum(net) filter (where net > 0)", "", aggregate=True).columns == {"net"}
