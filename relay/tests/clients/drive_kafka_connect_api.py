# Drives a worker with kafka-connect-api: arguments are the worker's URL and a connector as JSON. Fails on the first surprise.
import json
import sys
import time

from kafka_connect_api.errors import GenericNotFound
from kafka_connect_api.kafka_connect_api import Api, Cluster, Connector

url, description = sys.argv[1], json.loads(sys.argv[2])
name, config = description["name"], description["config"]
cluster = Cluster(Api(url=url))


# A connector that was just created has no status yet: like Kafka Connect, the worker answers 404 until it has.
def holds(check):
    try:
        return check()
    except GenericNotFound:
        return False


def eventually(what, check):
    deadline = time.monotonic() + 60
    while not holds(check):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def is_not_found(call):
    try:
        call()
    except GenericNotFound as error:
        return error.code == 404
    return False


assert cluster.version and cluster.kafka_cluster
assert cluster.connectors == {}
connector = Connector(cluster, name)
assert is_not_found(lambda: connector.status)

connector.config = config
assert list(cluster.connectors) == [name]
assert connector.exists() and connector.connector_class == config["connector.class"]


def task_state():
    tasks = connector.tasks
    return tasks[0].state if tasks and connector.status["tasks"] else None


eventually("it runs", lambda: connector.state == "RUNNING" and task_state() == "RUNNING")
assert connector.tasks[0].config["task.class"].endswith("PostgresConnectorTask")
connector.pause()
eventually("it is paused", lambda: connector.state == "PAUSED" and task_state() == "PAUSED")
connector.resume()
eventually("it runs again", lambda: connector.state == "RUNNING" and task_state() == "RUNNING")
connector.restart()
connector.restart_all_tasks()
eventually("its task runs again", lambda: task_state() == "RUNNING")
connector.cycle_connector()
eventually("it has cycled", lambda: connector.state == "RUNNING" and task_state() == "RUNNING")

assert "level" in cluster.root_logger
cluster.root_logger = "DEBUG"
assert cluster.root_logger["level"] == "DEBUG"
cluster.root_logger = "INFO"

connector.delete()
eventually("it is gone", lambda: cluster.connectors == {})
assert is_not_found(lambda: connector.config)
print("kafka-connect-api is content")
