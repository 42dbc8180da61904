//! Where a table has the columns that the router needs, found once per version of the table.

use std::sync::Arc;

use crate::change::Table;
use crate::options::RouterOptions;

/// Most versions of tables that are remembered; a connector has few outbox tables.
const PLANS_MAX: usize = 64;

/// Positions of the columns.
#[derive(Debug, Clone)]
pub(crate) struct TablePlan {
    pub(crate) id: Option<usize>,
    pub(crate) key: Option<usize>,
    pub(crate) payload: Option<usize>,
    pub(crate) route: Option<usize>,
    pub(crate) timestamp: Option<usize>,
    pub(crate) version: Option<usize>,
    pub(crate) tracing: Option<usize>,
    /// In the order of the option.
    pub(crate) additional: Vec<Option<usize>>,
}

/// The plans of the tables seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plans {
    list: Vec<(Arc<Table>, Arc<TablePlan>)>,
    last: usize,
}

impl Plans {
    pub(crate) fn of(&mut self, table: &Arc<Table>, options: &RouterOptions) -> Arc<TablePlan> {
        if let Some((known, plan)) = self.list.get(self.last)
            && Arc::ptr_eq(known, table)
        {
            return Arc::clone(plan);
        }
        self.last = match self.list.iter().position(|(known, _)| Arc::ptr_eq(known, table)) {
            Some(index) => index,
            None => {
                if self.list.len() == PLANS_MAX {
                    self.list.clear();
                }
                let plan = Arc::new(TablePlan::new(table, options));
                self.list.push((Arc::clone(table), plan));
                self.list.len() - 1
            }
        };
        Arc::clone(&self.list[self.last].1)
    }
}

impl TablePlan {
    fn new(table: &Table, options: &RouterOptions) -> Self {
        let optional =
            |column: &Option<String>| column.as_deref().and_then(|column| table.index_of(column));
        Self {
            id: table.index_of(&options.id_column),
            key: table.index_of(&options.key_column),
            payload: table.index_of(&options.payload_column),
            route: table.index_of(&options.route_column),
            timestamp: optional(&options.timestamp_column),
            version: optional(&options.version_column),
            tracing: table.index_of(&options.tracing.column),
            additional: options
                .additional
                .iter()
                .map(|field| table.index_of(&field.column))
                .collect(),
        }
    }
}
