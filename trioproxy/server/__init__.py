"""The process: everything is wired here (`build`), connections are accepted and survived here (`listener`,
`connection`, `protocol`), and it starts and stops here (`run`). The only door to Hypercorn and to signals."""
