"""How Kith's processes speak: one server builder, its interceptors, health, drain, and channels to other services.

Order of the interceptors, outermost first: telemetry, errors, admission, auth, deadlines. Each states its own rule in one
method over :class:`shared.rpc.interceptors.call.Call` and works for all four kinds of RPC.
"""
