//! Without a fault: which calls are made. What is found here is what the matrix must play, no more and no less.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::{
    cell::Cell,
    columns::{CALLS, Column, LISTINGS, Phase},
    world::World,
};

#[tokio::test]
async fn calls_made_without_a_fault_are_the_columns_of_the_matrix() -> Result<()> {
    let world = World::new("nofault").await?;
    let cell = Cell::new("agent", true);
    world.create(&cell).await?;
    let _operator = world.start().await?;
    let columns: Vec<&Column> = CALLS.iter().chain(&LISTINGS).collect();
    let mut seen = 0;
    for (number, phase) in Phase::ALL.into_iter().enumerate() {
        if phase != Phase::Issue {
            cell.next_second(&world).await?;
        }
        let before = cell.begin(&world, phase).await?;
        cell.end(&world, phase, &before).await?;
        // what is made after the status, an event, may be on its way still
        let expected: BTreeSet<&str> =
            columns.iter().filter(|column| column.phases.contains(&phase)).map(|column| column.name).collect();
        let event = stage::eventually("the calls of this phase", std::time::Duration::from_secs(10), async || {
            let records = world.proxy.records();
            let made = &records[seen..];
            let names: BTreeSet<&str> = columns
                .iter()
                .filter(|column| made.iter().any(|record| column.describes(record, &world, &cell)))
                .map(|column| column.name)
                .collect();
            names.is_superset(&expected).then(|| (records.len(), made.to_vec()))
        });
        let (length, made) = match event.await {
            Ok(found) => found,
            Err(error) => {
                let records = world.proxy.records();
                anyhow::bail!(
                    "{error}: in {phase:?} {expected:?} of {:#?}",
                    records[seen..].iter().map(|r| format!("{:?} {:?}", r.call, r.status)).collect::<Vec<_>>()
                );
            }
        };
        seen = length;
        for record in &made {
            let described =
                columns.iter().any(|column| column.phases.contains(&phase) && column.describes(record, &world, &cell));
            assert!(
                described,
                "in {phase:?} the operator made a call that the matrix does not know: {:?}",
                record.call
            );
        }
        assert_eq!(world.token_requests(&cell).await?, number + 1, "one token for each phase");
    }
    cell.assert_never_worse(&world).await
}
