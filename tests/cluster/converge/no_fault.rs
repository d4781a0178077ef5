//! The calls that are made without a fault. The matrix must cover exactly these.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::converge::{
    cell::Cell,
    columns::{CALLS, Column, LISTS, Phase},
    fixture::Fixture,
};

#[tokio::test]
async fn calls_made_without_a_fault_are_the_columns_of_the_matrix() -> Result<()> {
    let fixture = Fixture::new("nofault").await?;
    let cell = Cell::new("agent", true);
    fixture.create(&cell).await?;
    let _operator = fixture.start().await?;
    let columns: Vec<&Column> = CALLS.iter().chain(&LISTS).collect();
    let mut seen = 0;
    for (number, phase) in Phase::ALL.into_iter().enumerate() {
        if phase != Phase::Issue {
            cell.next_second(&fixture).await?;
        }
        let before = cell.begin(&fixture, phase).await?;
        cell.end(&fixture, phase, &before).await?;
        // the call after the status, an event, may still be on its way
        let expected: BTreeSet<&str> =
            columns.iter().filter(|column| column.phases.contains(&phase)).map(|column| column.name).collect();
        let event = testbed::eventually("the calls of this phase", std::time::Duration::from_secs(10), async || {
            let records = fixture.proxy().records();
            let made = &records[seen..];
            let names: BTreeSet<&str> = columns
                .iter()
                .filter(|column| made.iter().any(|record| column.describes(record, &fixture, &cell)))
                .map(|column| column.name)
                .collect();
            names.is_superset(&expected).then(|| (records.len(), made.to_vec()))
        });
        let (length, made) = match event.await {
            Ok(found) => found,
            Err(error) => {
                let records = fixture.proxy().records();
                anyhow::bail!(
                    "{error}: in {phase:?} {expected:?} of {:#?}",
                    records[seen..].iter().map(|r| format!("{:?} {:?}", r.call, r.status)).collect::<Vec<_>>()
                );
            }
        };
        seen = length;
        for record in &made {
            let described = columns
                .iter()
                .any(|column| column.phases.contains(&phase) && column.describes(record, &fixture, &cell));
            assert!(
                described,
                "in {phase:?} the operator made a call that the matrix does not know: {:?}",
                record.call
            );
        }
        assert_eq!(fixture.token_requests(&cell).await?, number + 1, "one token for each phase");
    }
    cell.assert_never_worse(&fixture).await
}
