"""The web console: pages made on the server, which work without JavaScript and are live with a little of it."""
