"""The promises of Lyceum."""
