//! The description of the API is true, and its page asks nobody else.

use anyhow::Result;
use reqwest::Method;

use super::service::{Answer, ORDER_REQUEST, World};

#[tokio::test]
async fn what_is_documented_is_there_in_both_forms() -> Result<()> {
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    let document = world.service.get("/openapi.json").await?.json();
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let bases: &[&str] =
            if path.starts_with("/orders") { &["", "/order-service/rest"] } else { &[""] };
        for method in item.as_object().unwrap().keys() {
            for base in bases {
                let path = path.replace("{orderId}", "1").replace("{orderLineId}", "1");
                let method: Method = method.to_uppercase().parse()?;
                let request = world.service.request(method, &format!("{base}{path}"));
                let answer = Answer::to(request).await?;
                assert!(![404, 405].contains(&answer.status.as_u16()), "{path}: {}", answer.text);
            }
            operations += 1;
        }
    }
    assert_eq!(operations, 6, "{document:#}");
    Ok(())
}

#[tokio::test]
async fn the_page_is_served_without_help_from_outside() -> Result<()> {
    let world = World::new().await?;
    let root = world.service.get("/").await?;
    assert_eq!((root.status.as_u16(), root.header("location")), (303, "/docs"));
    let page = world.service.get("/docs/").await?;
    assert_eq!(page.status.as_u16(), 200);
    let initializer = world.service.get("/docs/swagger-initializer.js").await?.text;
    assert!(initializer.contains("/openapi.json"), "{initializer}");
    assert!(initializer.contains(r#""validatorUrl": "none""#), "{initializer}");
    for text in [&page.text, &initializer] {
        assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    }
    for part in
        page.text.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"))
    {
        let part = part.trim_start_matches("./");
        let file = world.service.get(&format!("/docs/{part}")).await?;
        assert_eq!(file.status.as_u16(), 200, "{part}");
    }
    Ok(())
}
