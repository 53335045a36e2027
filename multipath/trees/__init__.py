"""Dynamic routing after McGill and Perona: static, actor and critic networks."""
