"""The page of a study: one file that answers where overfitting begins, how sure that is, and what to pick."""

from overfit_lab.report.page.comparison import compare
from overfit_lab.report.page.content import Page, page_content
from overfit_lab.report.page.render import page_json, render_page

__all__ = ["Page", "compare", "page_content", "page_json", "render_page"]
