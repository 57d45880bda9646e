"""SQL that people write: what of it is allowed, in one canonical spelling. Nothing is executed here.

polars runs whatever SQL it is given: ``read_csv('/etc/hostname')`` reads that file, DROP and DELETE work on
tables. So text is tokenised and parsed (sqlglot), refused unless it is plain, deterministic reading of the
tables it may see, and spelt again from its tokens: what polars gets are exactly the tokens that were checked,
without comments, so that two parsers cannot disagree about where a text or a comment ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from holdfast_model.errors import Invalid, Problem

DIALECT = "postgres"
MAX_TEXT = 20_000
MAX_TOKENS = 5_000
MAX_DEPTH = 150
"""Deeper trees could exhaust the stack of the parser or of polars, which would end the process."""
MAX_TABLES = 256
"""Most times that tables may be read, common table expressions counted as often as they are used."""

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FILE_FUNCTION = re.compile(r"(read|scan)_", re.IGNORECASE)
_CLOCKS = frozenset(
    {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "current_user", "sysdate"}
)
_IMPURE = _CLOCKS | frozenset(
    {
        "now", "today", "random", "rand", "randn", "uuid", "gen_random_uuid", "uuid_generate_v4", "getdate",
        "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "unix_timestamp", "nextval",
        "setseed", "pg_sleep", "version",
    }
)  # fmt: skip
_FOREIGN_TOKENS = frozenset(
    {
        TokenType.HEREDOC_STRING, TokenType.BYTE_STRING, TokenType.HEX_STRING, TokenType.BIT_STRING,
        TokenType.UNICODE_STRING, TokenType.NATIONAL_STRING, TokenType.RAW_STRING, TokenType.PARAMETER,
        TokenType.PLACEHOLDER, TokenType.UNKNOWN, TokenType.SEMICOLON, TokenType.HINT, TokenType.SESSION_PARAMETER,
    }
)  # fmt: skip
_STARTS = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN})
_FORBIDDEN: tuple[type[exp.Expr], ...] = (
    exp.Command, exp.DDL, exp.DML, exp.Drop, exp.Alter, exp.Set, exp.Use, exp.Into, exp.Lock, exp.Lateral,
    exp.Unnest, exp.Values, exp.TableSample, exp.Pivot, exp.Placeholder, exp.Parameter, exp.SessionParameter,
)  # fmt: skip
# DDL and DML are bases of statements that change something, but a query is listed under DDL as well.
_QUERIES = (exp.Select, exp.SetOperation, exp.Subquery)


@dataclass(frozen=True)
class Expression:
    """A checked SQL expression. ``text`` is canonical; ``columns`` are the names it reads."""

    text: str
    columns: frozenset[str]
    aggregates: bool


@dataclass(frozen=True)
class Query:
    """A checked SELECT. ``text`` is canonical; ``tables`` are the inputs it reads."""

    text: str
    tables: frozenset[str]


def expression(text: str, pointer: str, *, aggregate: bool = False) -> Expression:
    """Check an expression over the columns of one table.

    ``aggregate`` False: over one row, so neither aggregates nor windows. Raises Invalid at ``pointer``.
    """
    canonical, tokens = _canonical(text, pointer)
    if tokens[0].token_type in _STARTS - {TokenType.L_PAREN}:
        raise _invalid(pointer, "an expression over columns is expected here, not a query")
    tree = _parse(canonical, pointer)
    if isinstance(tree, exp.Alias):
        raise _invalid(pointer, f"an expression has no alias here; leave out 'as {tree.alias}'")
    value = isinstance(tree, exp.Condition | exp.Paren | exp.Filter)
    if not value or isinstance(tree, exp.Star | exp.Tuple | exp.Query):
        raise _invalid(pointer, "an SQL expression over columns is expected here")
    aggregates = False
    for node in tree.walk():
        _refuse(node, pointer)
        if isinstance(node, exp.Query | exp.Table | exp.Exists):
            raise _invalid(pointer, "an expression cannot hold a query")
        if isinstance(node, exp.AggFunc | exp.Window):
            aggregates = True
            if not aggregate:
                raise _invalid(pointer, f"{node.sql(DIALECT)} looks at several rows; only one row is seen here")
    columns = frozenset(c.name for c in tree.find_all(exp.Column) if not isinstance(c.this, exp.Star))
    qualified = next((c for c in tree.find_all(exp.Column) if c.table), None)
    if qualified is not None:
        raise _invalid(pointer, f"write {qualified.name!r} without {qualified.table!r}: there is only one table here")
    return Expression(canonical, columns, aggregates)


def query(text: str, tables: Collection[str], pointer: str) -> Query:
    """Check one SELECT (or WITH ... SELECT) that reads nothing but ``tables``. Raises Invalid at
    ``pointer``.
    """
    canonical, tokens = _canonical(text, pointer)
    if tokens[0].token_type not in _STARTS:
        raise _invalid(pointer, f"only SELECT or WITH ... SELECT is allowed, not {tokens[0].text.upper()}")
    tree = _parse(canonical, pointer)
    if not isinstance(tree, _QUERIES):
        raise _invalid(pointer, "only SELECT or WITH ... SELECT is allowed")
    for node in tree.walk():
        _refuse(node, pointer)
    named = _common_tables(tree, tables, pointer)
    read: set[str] = set()
    for table in tree.find_all(exp.Table):
        name = _table_name(table, pointer)
        if name in tables:
            read.add(name)
        elif name not in named:
            known = ", ".join(sorted(tables)) or "none"
            raise _invalid(pointer, f"no input is called {name!r}; the tables of this stage are: {known}")
    if not read:
        raise _invalid(pointer, f"the query reads none of its inputs: {', '.join(sorted(tables))}")
    if _reads(tree, named) > MAX_TABLES:
        raise _invalid(pointer, f"the query reads tables more than {MAX_TABLES} times")
    return Query(canonical, frozenset(read))


def _canonical(text: str, pointer: str) -> tuple[str, Sequence[Token]]:
    """The tokens of ``text`` joined by single blanks: no comments, texts and quoted names quoted anew."""
    if len(text) > MAX_TEXT:
        raise _invalid(pointer, f"SQL of {len(text)} characters; at most {MAX_TEXT} are allowed")
    if "\x00" in text:
        raise _invalid(pointer, "SQL cannot hold a NUL character")
    try:
        tokens = sqlglot.tokenize(text, dialect=DIALECT)
    except sqlglot.errors.SqlglotError as e:
        raise _invalid(pointer, f"not valid SQL: {_first_line(e)}") from e
    if len(tokens) > 1 and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens = tokens[:-1]
    if not tokens:
        raise _invalid(pointer, "SQL is expected here, but it is empty")
    if len(tokens) > MAX_TOKENS:
        raise _invalid(pointer, f"SQL of {len(tokens)} words; at most {MAX_TOKENS} are allowed")
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        _refuse_token(token, after, pointer)
    return "".join(_spaced(tokens)), tokens


def _spaced(tokens: Sequence[Token]) -> Iterator[str]:
    """Blanks as people write them; only brackets, commas and dots between names go without."""
    before: Token | None = None
    for token in tokens:
        if before is not None and not _adjacent(before, token):
            yield " "
        yield _spell(token)
        before = token


def _adjacent(left: Token, right: Token) -> bool:
    kind, before = right.token_type, left.token_type
    if kind in (TokenType.COMMA, TokenType.R_PAREN) or before is TokenType.L_PAREN:
        return True
    if kind is TokenType.L_PAREN:
        return bool(before is TokenType.VAR)
    names = (TokenType.VAR, TokenType.IDENTIFIER, TokenType.STAR)
    return (kind is TokenType.DOT and before in names) or (before is TokenType.DOT and kind in names)


def _spell(token: Token) -> str:
    if token.token_type is TokenType.STRING:
        return "'" + token.text.replace("'", "''") + "'"
    if token.token_type is TokenType.IDENTIFIER:
        return '"' + token.text.replace('"', '""') + '"'
    return str(token.text)


def _refuse_token(token: Token, after: Token | None, pointer: str) -> None:
    called = after is not None and after.token_type is TokenType.L_PAREN
    quoted = token.token_type is TokenType.IDENTIFIER
    if token.token_type in _FOREIGN_TOKENS:
        raise _invalid(pointer, f"{token.text!r} is not allowed in this SQL (line {token.line}, column {token.col})")
    if token.token_type is TokenType.STRING:
        return
    name = token.text.lower()
    if called and quoted:
        raise _invalid(pointer, f'"{token.text}"(...): the name of a function is not quoted')
    if called and _FILE_FUNCTION.match(name):
        raise _invalid(pointer, f"{token.text}(...) is not allowed: a query reads the stage's inputs and nothing else")
    if (called and name in _IMPURE) or (not quoted and name in _CLOCKS):
        raise _invalid(pointer, f"{token.text} is not allowed: it gives another result each time the stage is computed")


def _parse(text: str, pointer: str) -> exp.Expr:
    try:
        trees = sqlglot.parse(text, dialect=DIALECT)
    except sqlglot.errors.SqlglotError as e:
        raise _invalid(pointer, f"not valid SQL: {_first_line(e)}") from e
    except RecursionError as e:
        raise _invalid(pointer, "the SQL is nested too deeply") from e
    if len(trees) != 1 or trees[0] is None:
        raise _invalid(pointer, "exactly one statement is expected")
    tree: exp.Expr = trees[0]
    if _depth(tree) > MAX_DEPTH:
        raise _invalid(pointer, f"the SQL is nested more than {MAX_DEPTH} levels deep")
    return tree


def _refuse(node: exp.Expr, pointer: str) -> None:
    if isinstance(node, _FORBIDDEN) and not isinstance(node, _QUERIES):
        raise _invalid(pointer, f"{_kind(node)} is not allowed: only reading of the stage's inputs is")
    if isinstance(node, exp.Table) and not isinstance(node.this, exp.Identifier):
        raise _invalid(
            pointer, "a function cannot stand for a table: a query reads the stage's inputs and nothing else"
        )
    if isinstance(node, exp.With) and node.args.get("recursive"):
        raise _invalid(pointer, "WITH RECURSIVE is not supported")


def _common_tables(tree: exp.Expr, tables: Collection[str], pointer: str) -> dict[str, exp.Expr]:
    named: dict[str, exp.Expr] = {}
    for cte in tree.find_all(exp.CTE):
        if not isinstance(cte.this, exp.Query):
            raise _invalid(pointer, "WITH ... AS (...) must hold a SELECT")
        if not _PLAIN_NAME.match(cte.alias):
            raise _invalid(pointer, f"{cte.alias!r} is not a name for a table; use letters, digits and _")
        if cte.alias in tables or cte.alias in named:
            raise _invalid(pointer, f"WITH {cte.alias}: there is a table of this name already")
        named[cte.alias] = cte.this
    return named


def _table_name(table: exp.Table, pointer: str) -> str:
    if table.args.get("db") or table.args.get("catalog"):
        raise _invalid(pointer, f"{table.sql(DIALECT)}: name the input alone, without a schema in front")
    return str(table.name)


def _reads(tree: exp.Expr, named: dict[str, exp.Expr]) -> int:
    """How often tables are read once every common table expression is put in where it is used."""
    costs: dict[str, int] = {}

    def cost(node: exp.Expr, inside: frozenset[str]) -> int:
        total = 0
        for table in _tables_outside_with(node):
            name = str(table.name)
            if name not in named or name in inside:
                total += 1
            else:
                if name not in costs:
                    costs[name] = cost(named[name], inside | {name})
                total += costs[name]
            if total > MAX_TABLES:
                return total
        return total

    return cost(tree, frozenset())


def _tables_outside_with(node: exp.Expr) -> Iterator[exp.Table]:
    for found in node.walk(prune=lambda n: isinstance(n, exp.CTE)):
        if isinstance(found, exp.Table):
            yield found


def _depth(tree: exp.Expr) -> int:
    deepest, stack = 0, [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in node.iter_expressions())
    return deepest


def _kind(node: exp.Expr) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(node).__name__).upper()


def _first_line(error: Exception) -> str:
    # sqlglot marks the place with terminal colours and names its own classes.
    line = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n")[0]
    return re.sub(r"Required keyword: '\w+' missing for <class '[\w.]+'>", "something is missing", line)


def _invalid(pointer: str, message: str) -> Invalid:
    return Invalid(message, [Problem(pointer, message)])
