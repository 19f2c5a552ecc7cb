"""Pure renderers: data in, text or one self-contained page out."""

from fanin.report.audit import Report as Report
from fanin.report.comparison import Comparison as Comparison
from fanin.report.comparison import Interval as Interval
from fanin.report.comparison import Row as Row
from fanin.report.page import compare_html as compare_html
from fanin.report.pictures import compare_picture as compare_picture
from fanin.report.table import compare_table as compare_table

__all__ = ["Comparison", "Interval", "Report", "Row", "compare_html", "compare_picture", "compare_table"]
