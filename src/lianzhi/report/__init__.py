"""Reports: one result as a printed table, JSON, Markdown and a self-contained HTML page.

This room only reads results: it measures nothing and knows no model.

    report = Report.from_json("out/demo")          # a folder, a report.json, or the dict itself
    print(report.table())
    report.to_html()                               # one page, offline, for any browser
"""

from lianzhi.report.data import LatencyEntry, Report, Row

__all__ = ["LatencyEntry", "Report", "Row"]
