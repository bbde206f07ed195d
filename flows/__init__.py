"""The stories of Lyceum: Prefect flows and the command line that tells them."""
