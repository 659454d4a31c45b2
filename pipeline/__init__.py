"""From the command line to a finished run.

In which order to read the code:

1. pipeline/graph.py: the graphs of a run and of a job on one page, with the step labels
2. transforms/__init__.py: the steps, one room each; the file named like its label is the door
3. pipeline/run/__init__.py: a run is a transaction of six steps; run/command.py calls them
4. transforms/destinations/contract/: what a destination must be able to do
5. pipeline/cli.py and pipeline/options/: from argv to a RunConfig
6. pipeline/check/: how lost, doubled or altered rows are found
7. transforms/stream/, with docs/streaming.md: the protocol of streaming
8. pipeline/streaming/: the life of a streaming job; runners/flink/: the cluster that it runs on

docs/guarantees.md has the argument, with the same step numbers as pipeline/run/.
"""

__version__ = "0.1.0"
