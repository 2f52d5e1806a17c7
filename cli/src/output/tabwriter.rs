//! Elastic tab stops: the algorithm of Go's `text/tabwriter`, which lays out all of kubectl's output.
//!
//! Pure. A cell is text that ends in a tab; the text after the last tab of a line belongs to no column.
//! Consecutive lines with a cell in the same column share that column's width.

/// How cells are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) min_width: usize,
    pub(crate) padding: usize,
}

/// Tables of `get`.
pub(crate) const TABLE: Layout = Layout {
    min_width: 6,
    padding: 3,
};
/// Text of `describe` and `rollout history`.
pub(crate) const DESCRIPTION: Layout = Layout {
    min_width: 0,
    padding: 2,
};

/// Aligns the cells of `text`.
pub(crate) fn align(layout: Layout, text: &str) -> String {
    layout_lines(layout, text, None)
}

/// Aligns the cells of `text`; columns are at least as wide as `widths`, which grow along.
///
/// A watch prints its rows in portions that have to line up with each other.
pub(crate) fn align_remembering(layout: Layout, text: &str, widths: &mut Vec<usize>) -> String {
    layout_lines(layout, text, Some(widths))
}

fn layout_lines(layout: Layout, text: &str, remembered: Option<&mut Vec<usize>>) -> String {
    let lines: Vec<Vec<&str>> = text
        .split_terminator('\n')
        .map(|line| line.split('\t').collect())
        .collect();
    let mut writer = Writer {
        layout,
        lines: &lines,
        remembered,
        stack: Vec::new(),
        out: String::new(),
    };
    writer.format(0, lines.len());
    writer.out
}

struct Writer<'a> {
    layout: Layout,
    lines: &'a [Vec<&'a str>],
    /// What earlier portions needed; none where blocks do not influence each other.
    remembered: Option<&'a mut Vec<usize>>,
    /// Widths of the columns to the left of the one being laid out.
    stack: Vec<usize>,
    out: String,
}

impl Writer<'_> {
    fn format(&mut self, from: usize, to: usize) {
        let column = self.stack.len();
        let has_cell = |line: &Vec<&str>| column + 1 < line.len();
        let mut printed = from;
        let mut this = from;
        while this < to {
            if !has_cell(&self.lines[this]) {
                this += 1;
                continue;
            }
            self.write_lines(printed, this);
            let begin = this;
            let mut width = self.layout.min_width;
            while this < to && has_cell(&self.lines[this]) {
                width = width.max(self.lines[this][column].chars().count() + self.layout.padding);
                this += 1;
            }
            let width = self.remember(column, width);
            self.stack.push(width);
            self.format(begin, this);
            self.stack.pop();
            printed = this;
        }
        self.write_lines(printed, to);
    }

    fn remember(&mut self, column: usize, width: usize) -> usize {
        let Some(remembered) = self.remembered.as_deref_mut() else {
            return width;
        };
        if remembered.len() <= column {
            remembered.resize(column + 1, 0);
        }
        remembered[column] = remembered[column].max(width);
        remembered[column]
    }

    fn write_lines(&mut self, from: usize, to: usize) {
        for line in &self.lines[from..to] {
            for (index, cell) in line.iter().enumerate() {
                self.out.push_str(cell);
                if let Some(width) = self.stack.get(index) {
                    let missing = width.saturating_sub(cell.chars().count());
                    self.out.extend(std::iter::repeat_n(' ', missing));
                }
            }
            self.out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(layout: Layout, text: &str, expected: Expect) {
        expected.assert_eq(&align(layout, text));
    }

    #[test]
    fn columns_of_a_table_are_at_least_six_wide_and_the_last_is_not_padded() {
        check(
            TABLE,
            "NAME\tREADY\tAGE\nweb-5d9c\t1/1\t5m\nx\t0/1\t12s\n",
            expect![[r#"
                NAME       READY   AGE
                web-5d9c   1/1     5m
                x          0/1     12s
            "#]],
        );
    }

    #[test]
    fn blocks_of_a_description_have_their_own_widths() {
        check(
            DESCRIPTION,
            "Name:\tweb\nLabels:\ta=b\n\tc=d\nContainers:\n  web:\n    Image:\tnginx\n    Port:\t80/TCP\n",
            expect![[r#"
                Name:    web
                Labels:  a=b
                         c=d
                Containers:
                  web:
                    Image:  nginx
                    Port:   80/TCP
            "#]],
        );
    }

    #[test]
    fn later_portions_keep_the_widths_of_earlier_ones() {
        let mut widths = Vec::new();
        let first = align_remembering(TABLE, "NAME\tAGE\nlong-name\t1s\n", &mut widths);
        let second = align_remembering(TABLE, "x\t2s\n", &mut widths);
        expect![[r#"
            NAME        AGE
            long-name   1s
            x           2s
        "#]]
        .assert_eq(&(first + &second));
    }
}
