"""The three commands: dis, nn and cluster."""
