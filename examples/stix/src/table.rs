//! The products: a CSV file in memory, found by the value of its first column.

use std::collections::BTreeMap;

/// Largest CSV that is read, in bytes.
pub const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Longest list of columns.
const COLUMNS_MAX: usize = 64;

/// A table read from CSV: a header line, then one line a row, first column unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    by_key: BTreeMap<String, usize>,
}

/// One row of a [`Table`].
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    table: &'a Table,
    index: usize,
}

impl Table {
    /// Reads a CSV text; fields may be quoted, a quoted field may not span lines.
    ///
    /// # Errors
    /// One sentence with the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        let (_, header) = lines.next().ok_or("line 1: the header is missing")?;
        let columns = fields(header).map_err(|reason| format!("line 1: {reason}"))?;
        if columns.len() > COLUMNS_MAX || columns.iter().any(String::is_empty) {
            return Err(format!(
                "line 1: a column has no name, or there are over {COLUMNS_MAX}"
            ));
        }
        let mut table = Self {
            columns,
            rows: Vec::new(),
            by_key: BTreeMap::new(),
        };
        for (number, line) in lines {
            table
                .add(line)
                .map_err(|reason| format!("line {number}: {reason}"))?;
        }
        if table.rows.is_empty() {
            Err("line 2: there is no row".to_owned())
        } else {
            Ok(table)
        }
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let row = fields(line)?;
        if row.len() != self.columns.len() {
            return Err(format!("{} fields, not {}", row.len(), self.columns.len()));
        }
        let key = row.first().cloned().unwrap_or_default();
        if let Some(before) = self.by_key.insert(key.clone(), self.rows.len()) {
            return Err(format!("`{key}` is there already, in row {}", before + 1));
        }
        self.rows.push(row);
        Ok(())
    }

    /// Number of rows, at least 1.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Always false: a table without rows is refused when it is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row whose first column is `key`.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Row<'_>> {
        self.by_key.get(key).map(|index| Row {
            table: self,
            index: *index,
        })
    }

    /// The row `nth`, counted from 0 and around again at the end.
    #[must_use]
    pub fn nth(&self, nth: u64) -> Row<'_> {
        let index = nth % self.rows.len().max(1) as u64;
        Row {
            table: self,
            index: usize::try_from(index).unwrap_or(0),
        }
    }
}

impl Row<'_> {
    /// Its number, counted from 1 below the header.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.index as u64 + 1
    }

    /// Its fields by column.
    #[must_use]
    pub fn columns(&self) -> BTreeMap<String, String> {
        let fields = self.table.rows.get(self.index).into_iter().flatten();
        self.table
            .columns
            .iter()
            .cloned()
            .zip(fields.cloned())
            .collect()
    }
}

/// Splits one line at its commas; `"…"` protects them and `""` is a quote within.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().ok_or("no field")?;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if quoted {
        Err("a quote is not closed".to_owned())
    } else {
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_key_and_by_number() {
        let table = Table::parse("id,name\na,\"x, \"\"y\"\"\"\n\nb,z\n").unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(table.find("a").unwrap().columns()["name"], "x, \"y\"");
        assert_eq!(table.find("b").unwrap().number(), 2);
        assert_eq!(table.nth(5).number(), 2);
        assert!(table.find("c").is_none());
    }

    #[test]
    fn a_broken_table_names_the_line() {
        for (text, expected) in [
            ("", "line 1: the header"),
            ("id,name\n", "line 2: there is no row"),
            ("id,name\na,b,c\n", "line 2: 3 fields, not 2"),
            (
                "id,name\na,b\na,c\n",
                "line 3: `a` is there already, in row 1",
            ),
            ("id,name\na,\"b\n", "line 2: a quote"),
            ("id,,x\n", "line 1: a column has no name"),
        ] {
            let error = Table::parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_committed_products_can_be_read() {
        let table = Table::parse(include_str!("../prods.csv")).unwrap();
        assert!(table.len() > 300);
        assert_eq!(table.find("p0001").unwrap().number(), 1);
    }
}
