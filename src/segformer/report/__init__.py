"""Functions that build reports.  A report is a single HTML file without scripts or requests to the network.

Each function returns an HTML fragment and escapes the texts that it is given:

    from segformer import report

    curves = report.line_chart({"loss": points}, x_label="step", y_label="loss", smooth=True)
    report.write_page(path, report.page("Training", "mit_b0 on toy data", report.section("Curves", curves)))
"""

from segformer.report.charts import line_chart as line_chart
from segformer.report.html import columns as columns
from segformer.report.html import facts as facts
from segformer.report.html import key_values as key_values
from segformer.report.html import legend as legend
from segformer.report.html import page as page
from segformer.report.html import paragraph as paragraph
from segformer.report.html import section as section
from segformer.report.html import write_page as write_page
from segformer.report.pictures import pictures as pictures
from segformer.report.tables import class_table as class_table
from segformer.report.tables import confusion as confusion
from segformer.report.tables import table as table
