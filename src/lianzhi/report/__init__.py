"""Reports: one result as a printed table, JSON, Markdown and a self-contained HTML page.

This room only reads results: it measures nothing and knows no model.

    report = Report.from_json("out/demo")          # a folder, a report.json, or the dict itself
    print(report.table())
    report.to_html()                               # one page, offline, for any browser
    page_of_runs([Run("half", report), Run("third", other)])  # one page of several runs
"""

from lianzhi.report.data import FORMAT, LatencyEntry, Report, Row
from lianzhi.report.html import page_of_runs
from lianzhi.report.runs import Run, remark_lines

__all__ = ["FORMAT", "LatencyEntry", "Report", "Row", "Run", "page_of_runs", "remark_lines"]
