"""Look at the engines by a furl of the interface "reader"."""

from ipmpi.client import EngineView
from ipmpi.client.calls import Calls
from ipmpi.client.connecting import connect

session = connect(role="reader")  # or connect("path/to/ipcontroller-reader.furl", role="reader")
engines = EngineView(Calls(session))
print(engines.get_ids(), engines.keys())
session.close()
