"""The client: the node, its endpoints and the agent."""
