"""Words and decisions: no asyncio, no redis, no clock. Whatever needs the time is given ``now``."""
