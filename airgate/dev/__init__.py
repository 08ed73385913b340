"""The local stack: the gate on embedded workerd, an OpenID provider and a sample upstream, all on this machine."""
