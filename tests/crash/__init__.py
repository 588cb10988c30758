"""Kill storms: real processes are killed wherever it hurts most and started again, until everything has ended.

`client` is the product as a process that dies on order (`mortal` says where), `processes` starts and kills, `storm`
makes the weather, `invariants` reads what is left in the database, on the disk and in the vendor's ledger. `ablations`
are wrong wirings that a storm must catch.

On PostgreSQL there are many at once: `fleet` is workers on machines of their own, `fleet_storm` kills and freezes them,
`fleet_restarts` crashes their database.
"""
