"""A bounded run is a transaction of six steps.

The numbers are those of docs/guarantees.md; a test kills the process before and after each step.

1 recover                 recover.py: what the runs before have left unfinished
2 plan                    plan.py; make_plan.py: ranges, start watermarks, the idle rule;
                          preconditions.py, pruned_ids.py: what refuses the run; look_ahead.py:
                          all of it, before the first change; written_above.py: what a streaming job
                          has written already; make_ready.py: the first changes; begin.py for
                          the first run;
                          adopt.py, generations.py: a topic that goes on as another one
3 read and write          read_and_write.py runs pipeline/graph.py: nothing is visible
4 prove and prepare       prove_source.py, prove.py; rejected_rate.py: too many rejected;
                          prepare.py: one atomic statement claims the run
5 commit table by table   commit.py, in the order COMMIT_ORDER of transforms/model/tables.py
6 mark committed          commit.py; then Kafka gets the group's offsets

command.py is the page that calls them. repair.py is for a run whose write streams have expired
between 4 and 6; settings.py is what a run record remembers; summary.py, progress.py and
progress_bar.py are what a person sees.
"""
