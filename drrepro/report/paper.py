"""The paper's numbers beside data that stand for none of its."""

from dataclasses import replace

from drrepro.studies.plan import Plan


def beside(plan: Plan) -> Plan:
    """Return the plan with the data set of the paper whose numbers are to stand beside it, if it stands for none."""
    published = plan.study.published if plan.study else None
    return plan if plan.paper or published is None else replace(plan, paper=published.data)
