"""Moving every archive key of an organization from one keystore to another, all or nothing (contract: Migration).

Preflight, copy with read-back, verify, decide, clean up. The decision is one database transaction and the only point of
decision: before it every failure leaves the source as it was, after it everything only goes forward.
"""
