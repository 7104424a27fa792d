"""The service behind the plugin: which keystore is active for whom, and every change of it."""

# Foreign keys lead from the tables of one domain to those of another: whoever uses one knows all.
from pulumi_keystore.control_plane import tables as tables
