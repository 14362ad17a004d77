#!/usr/bin/env python3
"""Refuses SQL of ours that somebody else's objects could get into.

Usage: sql_gate.py script FILE...      an install or upgrade script, in parts, and the control file
       sql_gate.py c FILE...           the SQL texts in C files
       sql_gate.py self-test FILE      snippets, each with the rules that it breaks

Prints a line for each finding, and fails if there is one.  The SQL is read by
PostgreSQL's own parser (Debian's python3-pglast), and so are the bodies of functions
in SQL and PL/pgSQL.  RULES says what is looked for, and why.
"""

import itertools
import re
import sys

import pglast

RULES = {
    # An object that somebody planted would be taken, with its owner and its rights.
    "create-or-replace": "CREATE OR REPLACE takes an object that is there",
    "if-not-exists": "IF NOT EXISTS takes an object that is there",
    "foreign-schema": "an object is not created in schema trigger_idem by its qualified name",
    # What the search path decides, the user decides.  Operators and functions are found by
    # how well their arguments fit, so pg_catalog does not win by being first.
    "relation": "a table or view is not qualified",
    "function": "a function is not qualified",
    "operator": "an operator is not written as OPERATOR(pg_catalog.op)",
    "cast": "the type of a cast is neither qualified nor a keyword",
    "collation": "a collation is not qualified",
    "type": "a type is neither of pg_catalog, nor qualified, nor a keyword",
    # These mean an operator that cannot be qualified.
    "in": "IN means the = of the search path: write = ANY with OPERATOR",
    "between": "BETWEEN means the <= of the search path",
    "like": "LIKE and its kin mean an operator of the search path",
    "is-distinct-from": "IS DISTINCT FROM means the = of the search path",
    "nullif": "NULLIF means the = of the search path",
    "case-when": "CASE value WHEN means the = of the search path",
    "join-using": "JOIN USING and NATURAL mean the = of the search path",
    # Functions.  In their bodies functions, operators and casts to types of pg_catalog need no
    # schema where nothing but pg_catalog and pg_temp is searched, and pg_temp last: nobody can
    # make anything in the one, and functions and operators are not found in the other.  That is
    # so in bodies of functions that SET search_path to the two, and in those of RETURN and BEGIN
    # ATOMIC, whose names are looked up when the extension is installed.
    "control": "the control file does not have the script installed with pg_catalog as the search path",
    "search-path": "a function in SQL or PL/pgSQL does not SET search_path",
    "definer-path": "a SECURITY DEFINER function does not SET search_path = pg_catalog, pg_temp",
    "volatility": "a function does not say how volatile it is",
    "parallel": "a function does not say whether it is parallel safe",
    # The script as a whole
    "guard": "the script does not begin with \\echo .. \\quit",
    "comment": "a schema, type, function or view has no COMMENT",
    "constraint-name": "a constraint has no name",
    "revoke": "not everything is revoked from PUBLIC, in one place, after it was created",
    "grant-to-public": "something is granted to PUBLIC",
    "not-dumped": "a table is not marked by pg_extension_config_dump()",
    # C
    "not-constant": "SPI is given a text that is not constant",
    "syntax": "PostgreSQL's parser does not take it",
}

# Types of pg_catalog whose names are no keywords.  In declarations of columns and
# arguments they need no schema: there pg_catalog is searched first.
CATALOG_TYPES = {"text", "uuid", "jsonb", "timestamptz", "bytea", "float8", "regproc", "regrole", "name", "oid", "record",
                 "void", "tid", "xid", "int4", "int8", "bool", "regtype", "regclass"}

# What does no harm where only pg_catalog and pg_temp are searched
PINNED = {"function", "operator", "in", "between", "like", "is-distinct-from", "nullif", "case-when", "join-using", "collation"}
PINNED_PATH = ["pg_catalog", "pg_temp"]

# Where SPI is given what is no text of ours: (file, argument), and why
SPI_EXCEPTIONS = {
    ("statement.c", "statement->sql"): "the constant texts, which are looked at where they are",
    ("step.c", "command"): "run_once_sql(): the caller's command, as the caller",
    ("statement.c", "command"): "what statement_command() is given is looked at where it is called",
}

KINDS = {"AEXPR_IN": "in", "AEXPR_BETWEEN": "between", "AEXPR_NOT_BETWEEN": "between", "AEXPR_BETWEEN_SYM": "between",
         "AEXPR_NOT_BETWEEN_SYM": "between", "AEXPR_LIKE": "like", "AEXPR_ILIKE": "like", "AEXPR_SIMILAR": "like",
         "AEXPR_DISTINCT": "is-distinct-from", "AEXPR_NOT_DISTINCT": "is-distinct-from", "AEXPR_NULLIF": "nullif"}


# ---------- Parse trees, as dicts ----------

def parse(sql):
    return [statement.stmt(skip_none=True) for statement in pglast.parse_sql(sql)]


def nodes(tree):
    """The node and everything in it, from the outside in"""
    if isinstance(tree, dict):
        if "@" in tree:
            yield tree
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        return
    for child in tree:
        yield from nodes(child)


def name_of(names):
    return [name["sval"] for name in names]


def options_of(function):
    """The options of CREATE FUNCTION by name; SET is there more than once."""
    options = {}
    for option in function.get("options", ()):
        options.setdefault(option["defname"], []).append(option.get("arg"))
    return options


def pinned_path(options):
    """What a function sets search_path to, or None"""
    for setting in options.get("set", ()):
        if setting["name"] == "search_path":
            return [value["val"].get("sval") for value in setting.get("args", ())]
    return None


# ---------- Expressions and queries ----------

def check_node(node):
    """The rules that one node breaks by itself"""
    kind = node["@"]
    if kind == "FuncCall" and len(node["funcname"]) == 1:
        yield "function", name_of(node["funcname"])[0]
    elif kind == "A_Expr":
        if node["kind"]["name"] in KINDS:
            yield KINDS[node["kind"]["name"]], ""
        elif len(node["name"]) == 1:
            yield "operator", name_of(node["name"])[0]
    elif kind == "SubLink" and node["subLinkType"]["name"] in ("ANY_SUBLINK", "ALL_SUBLINK"):
        if "operName" not in node:
            yield "in", ""
        elif len(node["operName"]) == 1:
            yield "operator", name_of(node["operName"])[0]
    elif kind == "SortBy" and len(node.get("useOp", ())) == 1:
        yield "operator", name_of(node["useOp"])[0]
    elif kind == "TypeCast" and len(node["typeName"]["names"]) == 1:
        yield "cast", name_of(node["typeName"]["names"])[0]
    elif kind == "CollateClause" and len(node["collname"]) == 1:
        yield "collation", name_of(node["collname"])[0]
    elif kind == "CreateTrigStmt" and len(node["funcname"]) == 1:
        yield "function", name_of(node["funcname"])[0]
    elif kind == "IndexElem" and len(node.get("opclass", ())) == 1:
        yield "operator", name_of(node["opclass"])[0]
    elif kind == "DefineStmt":  # functions and operators are arguments of CREATE AGGREGATE and OPERATOR
        for argument in (option.get("arg") for option in node.get("definition", ())):
            if isinstance(argument, dict) and argument.get("@") == "TypeName" and len(argument["names"]) == 1 and \
                    name_of(argument["names"])[0] not in CATALOG_TYPES:
                yield "function", name_of(argument["names"])[0]
    elif kind == "CaseExpr" and "arg" in node:
        yield "case-when", ""
    elif kind == "JoinExpr" and (node.get("usingClause") or node.get("isNatural")):
        yield "join-using", ""
    elif kind in ("ColumnDef", "FunctionParameter", "CreateFunctionStmt"):
        declared = node.get("typeName") or node.get("argType") or node.get("returnType")
        if declared and len(declared["names"]) == 1 and name_of(declared["names"])[0] not in CATALOG_TYPES:
            yield "type", name_of(declared["names"])[0]


def check_relations(tree, ctes=frozenset()):
    """Unqualified tables, but for the names of WITH"""
    if isinstance(tree, (list, tuple)):
        for child in tree:
            yield from check_relations(child, ctes)
    elif isinstance(tree, dict):
        if "withClause" in tree:
            ctes = ctes | {cte["ctename"] for cte in tree["withClause"]["ctes"]}
        if tree.get("@") == "RangeVar" and "schemaname" not in tree and tree["relname"] not in ctes:
            yield "relation", tree["relname"]
        for name, child in tree.items():
            if name != "lockedRels":  # FOR UPDATE OF names what the query does
                yield from check_relations(child, ctes)


def check_tree(tree):
    yield from check_relations(tree)
    for node in nodes(tree):
        yield from check_node(node)


def check_query(sql):
    """The text of a query or, as PL/pgSQL has them, of an expression or assignment"""
    for text in (sql, "SELECT " + sql, "SELECT " + re.sub(r"^[^=]*?:?=", "", sql, count=1)):
        try:
            tree = parse(text)
        except pglast.parser.ParseError:
            continue
        yield from check_tree(tree)
        return
    yield "syntax", sql


# ---------- Functions ----------

def plpgsql_queries(tree):
    if isinstance(tree, dict):
        if "PLpgSQL_expr" in tree:
            yield tree["PLpgSQL_expr"]["query"]
        tree = tree.values()
    elif not isinstance(tree, list):
        return
    for child in tree:
        yield from plpgsql_queries(child)


def without_pinned(findings):
    """Of findings, those that count where only pg_catalog and pg_temp are searched"""
    return ((rule, what) for rule, what in findings
            if rule not in PINNED and not (rule == "cast" and what in CATALOG_TYPES))


def check_body(language, body, text):
    if language == "sql":
        yield from check_query(body)
    elif language == "plpgsql":
        try:
            queries = list(plpgsql_queries(pglast.parse_plpgsql(text)))
        except pglast.parser.ParseError as error:
            yield "syntax", f"{error}: {text[:100]}"
            return
        for query in queries:
            yield from check_query(query)


def check_function(function, text):
    options = options_of(function)
    name = ".".join(name_of(function["funcname"]))
    language = options["language"][0]["sval"] if "language" in options else "sql"
    path = pinned_path(options)
    if language not in ("c", "internal") and path is None and "sql_body" not in function:
        yield "search-path", name
    if options.get("security", [{}])[0].get("boolval") and path != PINNED_PATH:
        yield "definer-path", name
    if not function.get("is_procedure"):
        if "volatility" not in options:
            yield "volatility", name
        if "parallel" not in options:
            yield "parallel", name
    yield from without_pinned(check_tree(function.get("sql_body")))
    if language in ("sql", "plpgsql") and "as" in options:
        findings = check_body(language, options["as"][0][0]["sval"], text)
        yield from without_pinned(findings) if path == PINNED_PATH else findings


def check_do(statement):
    options = options_of({"options": statement["args"]})
    body = options["as"][0]["sval"]
    yield from check_body("plpgsql", body, f"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $do_body${body}$do_body$")


# ---------- Statements of a script ----------

def created(statement):
    """(kind, name) of what a statement creates; a name is a list"""
    kind = statement["@"]
    if kind == "CreateSchemaStmt":
        return "schema", [statement.get("schemaname")]
    if kind in ("CreateStmt", "IndexStmt", "CreateTrigStmt"):
        return {"CreateStmt": "table", "IndexStmt": "index"}.get(kind, "trigger"), relation_name(statement["relation"])
    if kind == "ViewStmt":
        return "view", relation_name(statement["view"])
    if kind == "CreateTableAsStmt":
        return "table", relation_name(statement["into"]["rel"])
    if kind == "CreateSeqStmt":
        return "sequence", relation_name(statement["sequence"])
    if kind == "CreateFunctionStmt":
        return "function", name_of(statement["funcname"])
    if kind in ("CreateEnumStmt", "CreateRangeStmt"):
        return "type", name_of(statement["typeName"])
    if kind == "CompositeTypeStmt":
        return "type", relation_name(statement["typevar"])
    if kind == "CreateDomainStmt":
        return "type", name_of(statement["domainname"])
    if kind == "DefineStmt":
        return "definition", name_of(statement["defnames"])
    return None, None


def relation_name(relation):
    return [relation[part] for part in ("schemaname", "relname") if part in relation]


def check_statement(statement, text):
    kind, name = created(statement)
    if statement.get("replace"):
        yield "create-or-replace", ".".join(name)
    if statement.get("if_not_exists"):
        yield "if-not-exists", ".".join(name or [])
    if kind == "schema" and name != ["trigger_idem"] or kind not in (None, "schema") and name[:1] != ["trigger_idem"]:
        yield "foreign-schema", ".".join(name)
    if statement["@"] == "CreateFunctionStmt":
        yield from check_function(statement, text)
    if statement["@"] == "DoStmt":
        yield from check_do(statement)
    if statement["@"] == "GrantStmt" and statement.get("is_grant"):
        if any(role["roletype"]["name"] == "ROLESPEC_PUBLIC" for role in statement["grantees"]):
            yield "grant-to-public", ""
    for node in nodes(statement):
        if node["@"] == "Constraint" and "conname" not in node and \
                node["contype"]["name"] not in ("CONSTR_NOTNULL", "CONSTR_NULL", "CONSTR_DEFAULT", "CONSTR_GENERATED", "CONSTR_IDENTITY"):
            yield "constraint-name", node["contype"]["name"]
    yield from check_tree({part: value for part, value in statement.items() if part != "sql_body"})


# ---------- The script as a whole ----------

def type_names(types):
    return tuple(tuple(name_of(kind["names"])) + (len(kind.get("arrayBounds", ())),) for kind in types)


def signature(function):
    modes = ("FUNC_PARAM_OUT", "FUNC_PARAM_TABLE")
    inputs = [parameter["argType"] for parameter in function.get("parameters", ())
              if parameter["mode"]["name"] not in modes]
    return tuple(name_of(function["funcname"])), type_names(inputs)


def commented(statement):
    """What a COMMENT is on, as what_needs_comment() has it"""
    target = statement["object"]
    if statement["objtype"]["name"] in ("OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE"):
        return tuple(name_of(target["objname"])), type_names(target.get("objargs", ()))
    if "sval" in target:
        return (target["sval"],)
    return tuple(name_of(target.get("names", ()) if isinstance(target, dict) else target))


def what_needs_comment(statement):
    kind, name = created(statement)
    if kind == "function":
        return signature(statement)
    return tuple(name) if kind in ("schema", "type", "view") else None


def check_revokes(statements):
    """All of schema, tables, routines and each type, one after the other, when all are there"""
    wanted = {"OBJECT_SCHEMA", "OBJECT_TABLE", "OBJECT_ROUTINE"}
    places = [place for place, statement in enumerate(statements)
              if statement["@"] == "GrantStmt" and not statement.get("is_grant") and not statement.get("privileges")
              and any(role["roletype"]["name"] == "ROLESPEC_PUBLIC" for role in statement["grantees"])]
    last_created = max([place for place, statement in enumerate(statements)
                        if created(statement)[0] not in (None, "index", "trigger")], default=-1)
    if last_created < 0:
        return
    types = {".".join(created(statement)[1]) for statement in statements if created(statement)[0] == "type"}
    for place in places:
        statement = statements[place]
        wanted.discard(statement["objtype"]["name"])
        if statement["objtype"]["name"] == "OBJECT_TYPE":
            types -= {".".join(name_of(names)) for names in statement["objects"]}
    for missing in sorted(wanted | types):
        yield "revoke", missing
    if places and (places[0] < last_created or places[-1] - places[0] != len(places) - 1):
        yield "revoke", "not in one place at the end"


def check_whole(statements):
    comments = {commented(statement) for statement in statements if statement["@"] == "CommentStmt"}
    for statement in statements:
        needed = what_needs_comment(statement)
        if needed and needed not in comments:
            yield "comment", ".".join(created(statement)[1])
    yield from check_revokes(statements)
    dumped = {node["args"][0]["val"]["sval"] for statement in statements for node in nodes(statement)
              if node["@"] == "FuncCall" and name_of(node["funcname"])[-1] == "pg_extension_config_dump"}
    for statement in statements:
        kind, name = created(statement)
        if kind in ("table", "sequence") and ".".join(name) not in dumped:
            yield "not-dumped", ".".join(name)


def check_script(text, is_whole=True):
    """(rule, what) of all that a script breaks"""
    guard = re.match(r"\\echo .*\\quit\n", text)
    if is_whole and not guard:
        yield "guard", ""
    text = text[guard.end():] if guard else text
    try:
        parsed = pglast.parse_sql(text)
    except pglast.parser.ParseError as error:
        yield "syntax", str(error)
        return
    statements = []
    for raw in parsed:
        length = raw.stmt_len or len(text) - raw.stmt_location
        source = text[raw.stmt_location:raw.stmt_location + length]
        statements.append(raw.stmt(skip_none=True))
        yield from check_statement(statements[-1], source)
    if is_whole:
        yield from check_whole(statements)


def check_control(text):
    for setting in ("schema = pg_catalog", "relocatable = false"):
        if not re.search(f"^{setting}$", text, re.MULTILINE):
            yield "control", setting


# ---------- C ----------

TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[A-Za-z_]\w*|->|[^\s\w]|\d\w*', re.DOTALL)


def tokens_of(text):
    return [token for token in TOKEN.findall(text) if not token.startswith(("/*", "//"))]


def string_macros(text):
    """#define NAME "..." """
    macros = {}
    for name, body in re.findall(r"^#define\s+(\w+)\s+((?:[^\n]*\\\n)*[^\n]*)", text, re.MULTILINE):
        tokens = [token for token in tokens_of(body) if token != "\\"]
        if tokens and all(token.startswith('"') for token in tokens):
            macros[name] = tokens
    return macros


def argument_at(tokens, start):
    """The tokens of one initializer or argument, to its comma or bracket"""
    depth = 0
    for end in range(start, len(tokens)):
        depth += (tokens[end] in "([{") - (tokens[end] in ")]}")
        if depth < 0 or depth == 0 and tokens[end] in ",;":
            return tokens[start:end]
    return tokens[start:]


def constant_text(tokens, macros):
    """The text of string literals and macros of them, or None"""
    strings = [string for token in tokens for string in macros.get(token, [token])]
    if not strings or not all(string.startswith('"') for string in strings):
        return None
    text = "".join(string[1:-1] for string in strings).replace("\\n", "\n").replace('\\"', '"')
    return text.replace("%s", "quoted")  # of psprintf()


def check_c(file, text):
    macros = string_macros(text)
    tokens = tokens_of(text)
    for place in range(2, len(tokens)):
        if tokens[place - 2:place] == [".", "sql"] and tokens[place] == "=":
            argument = argument_at(tokens, place + 1)
        elif tokens[place - 1:place + 3] == ["statement_command", "(", "psprintf", "("]:
            argument = argument_at(tokens, place + 3)
        elif tokens[place - 2:place + 1] != ["void", "statement_command", "("] and \
                tokens[place - 1:place + 1] == ["statement_command", "("]:
            argument = argument_at(tokens, place + 1)
        elif tokens[place] == "(" and re.fullmatch(r"SPI_(prepare|exec|cursor_(open|parse))\w*", tokens[place - 1]) \
                and "plan" not in tokens[place - 1] and tokens[place + 1:place + 4] != ["statement", "->", "plan"]:
            argument = argument_at(tokens, place + 1)
        else:
            continue
        sql = constant_text(argument, macros)
        shown = "".join(argument)
        if sql is not None:
            yield from ((rule, f"{what} in: {sql[:60]}") for rule, what in check_query(sql))
        elif (file, shown) not in SPI_EXCEPTIONS:
            yield "not-constant", shown


# ---------- The command ----------

def self_test(text):
    """Each snippet, after a line "-- script:", "-- part:", "-- control:" or "-- c:", breaks the rules named there."""
    checks = {"script": check_script, "part": lambda snippet: check_script(snippet, False),
              "control": check_control, "c": lambda snippet: check_c("snippet.c", snippet)}
    failures = []
    for kind, rules, snippet in re.findall(
            r"^-- (script|part|control|c):(.*)\n((?:(?!-- (?:script|part|control|c):).*\n?)*)", text, re.MULTILINE):
        expected = set(rules.replace(",", " ").split()) - {"nothing"}
        found = {rule for rule, _ in checks[kind](snippet)}
        if found != expected:
            failures.append(f"expected {sorted(expected)}, found {sorted(found)}:\n{snippet}")
        self_test.seen |= expected
    return failures + [f"no snippet breaks {rule}" for rule in RULES if rule not in self_test.seen]


self_test.seen = set()


def main():
    mode, *files = sys.argv[1:]
    texts = {file: open(file, encoding="utf-8").read() for file in files}
    if mode == "self-test":
        findings = self_test("".join(texts.values()))
    elif mode == "script":
        controls = [text for file, text in texts.items() if file.endswith(".control")]
        script = "".join(text for file, text in texts.items() if not file.endswith(".control"))
        found = itertools.chain(check_script(script), *(check_control(text) for text in controls))
        findings = [f"{rule}: {what} ({RULES[rule]})" for rule, what in found]
    else:
        findings = [f"{file}: {rule}: {what} ({RULES[rule]})" for file, text in texts.items()
                    for rule, what in check_c(file.split("/")[-1], text)]
    print("\n".join(findings), end="\n" if findings else "")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
