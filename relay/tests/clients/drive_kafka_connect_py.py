# Drives a worker with kafka-connect-py: arguments are the worker's URL and a connector as JSON. Fails on the first surprise.
import json
import sys
import time

from kafka_connect import KafkaConnect
from requests.exceptions import HTTPError

url, connector = sys.argv[1], json.loads(sys.argv[2])
name, config = connector["name"], connector["config"]
client = KafkaConnect(url=url)


# A connector that was just created has no status yet: like Kafka Connect, the worker answers 404 until it has.
def holds(check):
    try:
        return check()
    except HTTPError as error:
        assert error.response.status_code == 404, error.response.text
        return False


def eventually(what, check):
    deadline = time.monotonic() + 60
    while not holds(check):
        assert time.monotonic() < deadline, f"{what}: {client.get_connector_status(name)}"
        time.sleep(0.05)


def states(connector_state, *task_states):
    def reached():
        status = client.get_connector_status(name)
        tasks = [task["state"] for task in status["tasks"]]
        return status["connector"]["state"] == connector_state and tasks == list(task_states)

    eventually(f"{connector_state} {task_states}", reached)


def fails_with(code, call):
    try:
        call()
    except HTTPError as error:
        assert error.response.status_code == code, error.response.text
        return error.response.json()["message"]
    raise AssertionError(f"no HTTP {code}")


assert client.get_cluster_info()["kafka_cluster_id"]
assert client.list_connectors() == []
assert fails_with(404, lambda: client.get_connector(name)) == f"Connector {name} not found"

plugin = config["connector.class"]
assert plugin in [plugin["class"] for plugin in client.list_connector_plugins()]
assert client.validate_connector_config(plugin, {**config, "name": name})["error_count"] == 0
wrong = {**config, "name": name, "tasks.max": "none"}
assert client.validate_connector_config(plugin, wrong)["error_count"] > 0
fails_with(400, lambda: client.create_connector({"name": name, "config": wrong}))

created = client.create_connector(connector)
assert created["name"] == name and created["type"] == "source", created
fails_with(409, lambda: client.create_connector(connector))
states("RUNNING", "RUNNING")
assert client.list_connectors() == [name]
assert client.list_connectors(expand="info")[name]["info"]["type"] == "source"
assert list(client.list_connectors(expand="status", state="running")) == [name]
assert client.get_connector_config(name)["topic.prefix"] == config["topic.prefix"]
assert client.list_connector_tasks(name)[0]["id"] == {"connector": name, "task": 0}
assert client.get_connector_task_status(name, 0)["state"] == "RUNNING"

changed = {**client.get_connector_config(name), "poll.interval.ms": "100"}
assert client.update_connector(name, changed)["config"]["poll.interval.ms"] == "100"
states("RUNNING", "RUNNING")
client.pause_connector(name)
states("PAUSED", "PAUSED")
client.resume_connector(name)
states("RUNNING", "RUNNING")
assert client.restart_connector(name) is None
plan = client.restart_connector(name, include_tasks=True)
assert plan["tasks"][0]["state"] == "RESTARTING", plan
states("RUNNING", "RUNNING")
client.restart_connector_task(name, 0)
states("RUNNING", "RUNNING")
assert client.list_connector_topics(name) == {name: {"topics": []}}
client.reset_connector_topics(name)
client.stop_connector(name)
states("STOPPED")
client.delete_connector(name)
eventually("no connector", lambda: client.list_connectors() == [])
print("kafka-connect-py is content")
