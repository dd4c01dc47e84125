"""A Ray cluster of two nodes on this machine, on its loopback alone; it ends when its standard input does.

``python -m tests.night.cluster FOLDER`` says its address when it is there. The pid of a raylet, in a line of its own,
takes that node away without a farewell, and puts a new one in its place when the next line comes.
"""

import os
import sys

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ |= {**ON_LOOPBACK, "RAY_TMPDIR": sys.argv[1]}  # read when Ray is imported

from ray.cluster_utils import Cluster  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
CACHE = {"NIGHTREC_CACHE": f"{sys.argv[1]}/cache"}  # of the second machine; what it makes is not where the first looks


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        cluster.add_node(**NODE, env_vars=CACHE)
        print(cluster.address, flush=True)
        for line in sys.stdin:
            (node,) = (node for node in cluster.worker_nodes if raylet_of(node) == int(line))
            cluster.remove_node(node, allow_graceful=False)
            print("gone", flush=True)
            sys.stdin.readline()
            cluster.add_node(**NODE, env_vars=CACHE)
            print("there", flush=True)
    finally:
        cluster.shutdown()


def raylet_of(node: object) -> int:
    return node.all_processes["raylet"][0].process.pid  # type: ignore[attr-defined,no-any-return]


if __name__ == "__main__":
    main()
