"""Look at the engines by a furl of the interface "reader"."""

from ipmpi.client import EngineView
from ipmpi.client.session.calls import Calls
from ipmpi.client.session.connecting import connect

session = connect(role="reader")  # or connect("path/to/ipcontroller-reader.furl", role="reader")
engines = EngineView(Calls(session))
print(engines.get_ids(), engines.keys())
session.close()
