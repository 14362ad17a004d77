"""The few calls of libpq that the fuzz needs, the function call interface among them."""

import ctypes
import mmap

OK = (0, 1, 2)  # PGRES_EMPTY_QUERY, PGRES_COMMAND_OK, PGRES_TUPLES_OK
IDLE = 0  # PQTRANS_IDLE
UNKNOWN = 4  # PQTRANS_UNKNOWN: the connection is gone

_pq = ctypes.CDLL("libpq.so.5")


class _Argument(ctypes.Structure):
    """PQArgBlock; its union holds a pointer or an int, and we always use the pointer."""

    _fields_ = [("len", ctypes.c_int), ("isint", ctypes.c_int), ("value", ctypes.c_char_p)]


_Receiver = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def _declare(name, result, *arguments):
    function = getattr(_pq, name)
    function.restype = result
    function.argtypes = arguments


_p, _i, _s = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_declare("PQconnectdb", _p, _s)
_declare("PQfinish", None, _p)
_declare("PQstatus", _i, _p)
_declare("PQerrorMessage", _s, _p)
_declare("PQtransactionStatus", _i, _p)
_declare("PQbackendPID", _i, _p)
_declare("PQexec", _p, _p, _s)
_declare("PQexecParams", _p, _p, _s, _i, _p, ctypes.POINTER(_s), _p, _p, _i)
_declare("PQfn", _p, _p, _i, _p, ctypes.POINTER(_i), _i, ctypes.POINTER(_Argument), _i)
_declare("PQresultStatus", _i, _p)
_declare("PQresultErrorField", _s, _p, _i)
_declare("PQntuples", _i, _p)
_declare("PQnfields", _i, _p)
_declare("PQgetvalue", _s, _p, _i, _i)
_declare("PQgetisnull", _i, _p, _i, _i)
_declare("PQclear", None, _p)
_declare("PQsetNoticeReceiver", _p, _p, _Receiver, _p)


# PQfn() copies a result here whatever its length: room for the longest that there can be,
# which takes memory only where it is written to.
_RESULT_MAX = 1 << 30
_result = (ctypes.c_char * _RESULT_MAX).from_buffer(mmap.mmap(-1, _RESULT_MAX))


class Result:
    """What the server has answered; rows are of text, an error has an SQLSTATE."""

    def __init__(self, connection, result):
        self.rows = []
        self.sqlstate = self.message = None
        if _pq.PQresultStatus(result) in OK:
            columns = range(_pq.PQnfields(result))
            self.rows = [
                [None if _pq.PQgetisnull(result, row, column)
                 else _pq.PQgetvalue(result, row, column).decode() for column in columns]
                for row in range(_pq.PQntuples(result))
            ]
        else:
            self.sqlstate = _field(result, "C") or "none"
            self.message = _field(result, "M") or _pq.PQerrorMessage(connection).decode()
        _pq.PQclear(result)


def _field(result, code):
    value = _pq.PQresultErrorField(result, ord(code))
    return None if value is None else value.decode()


class Connection:
    """A session; on_notice(message, detail) is called for each notice."""

    def __init__(self, conninfo, on_notice=None):
        self._connection = _pq.PQconnectdb(conninfo.encode())
        if _pq.PQstatus(self._connection) != 0:
            raise OSError(_pq.PQerrorMessage(self._connection).decode())

        def receive(_, notice):
            if on_notice:
                on_notice(_field(notice, "M"), _field(notice, "D"))

        self._receiver = _Receiver(receive)  # to be kept as long as the connection
        _pq.PQsetNoticeReceiver(self._connection, self._receiver, None)

    def close(self):
        _pq.PQfinish(self._connection)

    def transaction_status(self):
        return _pq.PQtransactionStatus(self._connection)

    def run(self, sql):
        return Result(self._connection, _pq.PQexec(self._connection, sql.encode()))

    def run_with(self, sql, values):
        """One command with parameters, through the extended protocol."""
        array = (_s * max(len(values), 1))(
            *[None if value is None else value.encode() for value in values])
        return Result(self._connection, _pq.PQexecParams(
            self._connection, sql.encode(), len(values), None, array, None, None, 0))

    def call(self, oid, values):
        """A function through the function call interface; values are binary, or None."""
        array = (_Argument * max(len(values), 1))()
        for argument, value in zip(array, values):
            argument.len = -1 if value is None else len(value)
            argument.value = value
        length = _i()
        return Result(self._connection, _pq.PQfn(
            self._connection, oid, _result, ctypes.byref(length), 0, array, len(values)))

    def rows(self, sql):
        """The rows of a query that must not fail."""
        result = self.run(sql)
        if result.sqlstate:
            raise RuntimeError(f"{result.sqlstate} {result.message}: {sql[:200]}")
        return result.rows
